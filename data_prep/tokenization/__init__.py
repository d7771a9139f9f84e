"""From documents to indexed token files."""
