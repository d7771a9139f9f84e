"""From questions and conversations to batches."""
