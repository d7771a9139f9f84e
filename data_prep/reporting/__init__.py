"""The page about a corpus."""
