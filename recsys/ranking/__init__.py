"""Make lists of recommended items from scores: leave items out, apply business rules, re-rank."""
