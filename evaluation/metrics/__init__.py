"""Numbers about scored samples, with their intervals."""
