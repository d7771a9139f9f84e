"""Prompt forms of the published protocols, one file each; `evaluation.prompts` is their registry."""
