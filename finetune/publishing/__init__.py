"""The model card, and the scores that it shows."""
