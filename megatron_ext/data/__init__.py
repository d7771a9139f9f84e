"""Batches from token files."""
