"""Finding the text of evaluation sets in documents: the items, their index of word sequences, and the step of a recipe."""
