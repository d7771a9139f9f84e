"""Supervised and parameter-efficient fine-tuning of Hugging Face models."""

from galen.commands import explain_imports_of_scripts

explain_imports_of_scripts()
