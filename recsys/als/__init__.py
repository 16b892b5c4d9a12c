"""Alternating least squares, as both engines need it: the definition and the solvers."""
