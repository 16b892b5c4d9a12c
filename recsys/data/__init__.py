"""Read, check, split and generate events."""
