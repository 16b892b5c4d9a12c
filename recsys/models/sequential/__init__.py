"""Models that use the order of events."""
