"""The model families that can be converted. A new one is a file here and a line in `FAMILIES`."""

from checkpoints_convert.families import internlm2, llama, mistral, qwen
from checkpoints_convert.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (llama.FAMILY, mistral.FAMILY, qwen.QWEN2, qwen.QWEN3, internlm2.FAMILY)}
"""By `model_type` of the Hugging Face configuration."""
