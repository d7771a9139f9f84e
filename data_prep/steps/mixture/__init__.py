"""How often each document is taken."""
