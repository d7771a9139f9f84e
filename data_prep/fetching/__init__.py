"""Fetching raw data from where it is published.

Used by data_prep/download.py, and never without being asked.
"""
