"""Agreement of ranked lists: Kendall, Spearman, RBO and related measures,
with ties and partial lists.
"""
