"""Dividing a log into train, history and test, and the audit of what that did."""
