"""The Spark engine: the steps of ``recsys.flow`` on a cluster. pyspark is imported only here."""
