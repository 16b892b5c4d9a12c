"""The sections of the report of a run. Each is built by a function that takes the run."""
