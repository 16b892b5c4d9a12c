"""Top-N on Spark: the twins of ``recsys.ranking``."""
