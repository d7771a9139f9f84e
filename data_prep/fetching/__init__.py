"""Downloads of raw data from its publishers, for data_prep/download.py only."""
