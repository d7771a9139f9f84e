"""The format of checkpoints: folders, shards, pickles read safely."""
