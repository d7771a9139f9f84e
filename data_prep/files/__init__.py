"""Input files: which there are, the records in them, whether an output is of the same input."""
