"""Evaluate lists on Spark: the counterparts of the modules in ``recsys.evaluation``."""
