"""The large path: the hops of ``recsys.flow`` on a cluster; pyspark is imported here only."""
