"""Raw medical sources to curated documents to token files. No torch, no megatron in here."""
