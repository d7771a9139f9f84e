"""Converts checkpoints between Hugging Face and Megatron Core; one file per model family."""

from galen.commands import explain_imports_of_scripts

explain_imports_of_scripts()
