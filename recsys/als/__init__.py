"""Alternating least squares (ALS): the definition and the solvers, for both engines."""
