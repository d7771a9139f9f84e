"""State, metrics and reports of a run."""
