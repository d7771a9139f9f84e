"""The training loop, its optimizer, state and checkpoints."""
