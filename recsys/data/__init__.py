"""Reading, checking, splitting and making events."""
