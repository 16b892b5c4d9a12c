"""From scores to lists: selection, masking, business rules, and re-ranking."""
