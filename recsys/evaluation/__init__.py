"""Judging ranked lists: metrics, agreement, intervals, segments."""
