"""Chat models that judge and generate: local, or behind an endpoint."""
