"""The large path: the hops of ``recsys.experiment`` on a cluster; pyspark is imported here only."""
