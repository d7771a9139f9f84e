"""Checkpoints between Hugging Face and Megatron Core.

One small file per model family in `families`.
"""
