"""Split a log into train, history and test, and audit the result."""
