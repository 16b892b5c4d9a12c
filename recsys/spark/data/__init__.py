"""Read, split and audit events on Spark: the counterparts of the modules in ``recsys.data``."""
