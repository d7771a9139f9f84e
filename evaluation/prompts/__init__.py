"""Prompt forms of the published protocols, one file each.

`evaluation.prompts.registry` is their registry.
"""
