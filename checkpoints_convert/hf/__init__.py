"""Hugging Face folders: configuration, weights, vocabulary."""
