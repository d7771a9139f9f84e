"""Removal of documents that are in the corpus already: steps over all documents (see data_prep/steps/global_step.py), one file for each."""
