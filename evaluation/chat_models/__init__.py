"""Chat models that judge and write: a local one, or behind an endpoint."""
