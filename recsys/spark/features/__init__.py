"""Segments and attributes on Spark: the counterparts of the modules in ``recsys.features``."""
