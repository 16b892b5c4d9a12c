"""Models that learn from interactions alone."""
