"""Judging on Spark: the twins of ``recsys.evaluation``."""
