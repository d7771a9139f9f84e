"""The recipe of a run and its model's architecture, and the checks of both."""
