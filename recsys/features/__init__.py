"""Attributes and words of items and users as matrices, and user segments."""
