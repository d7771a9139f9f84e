"""Scores of Hugging Face models on medical tasks, with intervals, restartable item by item."""

from galen.commands import explain_imports_of_scripts

explain_imports_of_scripts()
