"""Answers judged by a model: against a rubric, and the judge against physicians."""
