"""Scoring of a model on tasks: requests, answers, sample logs, results."""
