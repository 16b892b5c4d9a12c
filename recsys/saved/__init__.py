"""Saved models: bundles, their update with new events, and export to MLflow."""
