"""Decide whether a difference could be chance: intervals, tests, comparisons of models, conditions
for continuous integration, and A/B tests."""
