"""Readers of raw sources, one class per file format, and their names in recipes."""

from data_prep.readers.medline import MedlineReader

READERS = {"medline": MedlineReader}
