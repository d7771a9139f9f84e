"""Prompt templates of the published protocols, one file each; `registry` has them by name."""
