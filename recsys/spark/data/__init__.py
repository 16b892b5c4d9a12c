"""Reading, splitting and auditing on Spark: the twins of ``recsys.data``."""
