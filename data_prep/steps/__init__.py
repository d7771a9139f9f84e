"""The steps between reading and writing: filters, deduplication, decontamination, mixture."""
