"""Evaluate ranked lists: metrics, agreement, intervals and groups."""
