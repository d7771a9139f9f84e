"""Quantization methods, and what a quantized model costs and knows."""
