"""Saved models: open them, bundle them, update them with new events, and export them to MLflow."""
