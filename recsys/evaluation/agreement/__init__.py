"""Agreement of ranked lists: Kendall, Spearman, RBO and their kin, with ties and partial lists."""
