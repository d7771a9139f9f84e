"""Whether a model is better than the one it was made from: paired, with prompts of its own."""
