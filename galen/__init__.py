"""Recipes, manifests, atomic output, progress and errors for all rooms. No torch, no megatron."""

__version__ = "0.1.0"
