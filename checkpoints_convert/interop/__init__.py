"""Checkpoints of other programs: NeMo, Megatron-LM's legacy format."""
