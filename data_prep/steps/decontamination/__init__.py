"""Finding the text of evaluation sets in documents.

The items, their index of word sequences, and the step of a recipe.
"""
