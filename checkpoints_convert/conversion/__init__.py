"""Conversion between Hugging Face and Megatron, tensor by tensor."""
