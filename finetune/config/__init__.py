"""The recipe of a fine-tuning run."""
