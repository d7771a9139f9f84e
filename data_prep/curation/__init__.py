"""A corpus from its recipe: the stages, what they read and write, how they are resumed."""
