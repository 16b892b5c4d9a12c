"""What is known of items and users besides events: attributes and words as matrices, and user
segments.
"""
