"""The sections of the report of a run. Each is built by a function that takes the run.

These functions raise RunFolderError if a file of the run that they read is missing or damaged.
"""
