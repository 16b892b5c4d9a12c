"""Decide whether a difference is real: intervals, tests, comparisons of models, gates, and A/B
tests."""
