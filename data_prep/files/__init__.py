"""Input files: finding, decompressing and parsing them."""
