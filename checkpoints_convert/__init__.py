"""Checkpoints between Hugging Face and Megatron Core: one small file per model family in `families`."""
