"""Supervised and parameter-efficient fine-tuning of Hugging Face models."""
