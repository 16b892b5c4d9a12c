"""Is a difference real: intervals, tests, comparisons of runs, gates, and A/B tests."""
