"""The training loop and what it carries from step to step."""
