"""Segments and attributes on Spark: the twins of ``recsys.features``."""
