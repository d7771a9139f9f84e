"""Scores of Hugging Face models on medical tasks, with intervals, restartable item by item."""
