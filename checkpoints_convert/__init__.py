"""Converts checkpoints between Hugging Face and Megatron Core; one file per model family."""
