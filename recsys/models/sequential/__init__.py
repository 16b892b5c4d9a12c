"""Models that use the order of events: what followed what, and what comes next after a whole history."""
