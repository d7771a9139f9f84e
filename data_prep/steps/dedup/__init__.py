"""Removal of documents that are in the corpus already.

Steps over all documents (see data_prep/steps/global_step.py), one file for each.
"""
