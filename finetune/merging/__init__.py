"""Models merged into one, or voting together."""
