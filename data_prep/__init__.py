"""Raw medical sources to curated documents to token files. No torch, no megatron in here."""

from galen.commands import explain_imports_of_scripts

explain_imports_of_scripts()
