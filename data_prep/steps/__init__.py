"""What is done to documents between reading and writing."""
