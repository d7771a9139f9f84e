"""Removal of exact duplicates: by identifier and by normalised text, over all sources, in three steps.

`SignatureWriter` notes two hashes of each document, `DuplicateFinder` decides in one task over all of them, `DuplicateFilter`
drops. datatrove's own exact deduplication handles one key per pass and settles ties between files by the order of a heap; here both
keys go in one pass and the rule is written down in `find_duplicates`.
"""
