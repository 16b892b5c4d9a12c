"""Training ALS on Spark: log blocks, half-steps, and the training curve."""
