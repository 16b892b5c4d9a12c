"""Encode attributes and words of items and users as matrices, and score items by user segment."""
