"""Adapters that vLLM can serve, and the settings of its engine for them. Needs no vLLM."""

from pathlib import Path
from typing import Any

from galen import json_file, pretrained
from galen.errors import UsageError

_MERGE = "train with lora.merge=true, or `galen merge`, and score the merged model"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `max_lora_rank`."""


def engine_options(adapter: Path, model: Path) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM` for a LoRA adapter on a model.

    Raises:
        DataError: its configuration cannot be read.
        UsageError: it has what vLLM does not support.
    """
    config = json_file.read_object(adapter / "adapter_config.json")
    problems = {
        f"is of type {config.get('peft_type')}": config.get("peft_type") != "LORA",
        "has DoRA": config.get("use_dora"),
        "has layers of its own (modules_to_save)": config.get("modules_to_save"),
        "trains biases": config.get("bias", "none") != "none",
        "has tokens of its own": _adds_tokens(adapter, model),
    }
    for problem, exists in problems.items():
        if exists:
            raise UsageError(
                f"--backend vllm: the adapter {adapter} {problem}, which vLLM does not serve;"
                f" {_MERGE}"
            )
    rank_pattern = config.get("rank_pattern") or {}
    rank = max([config.get("r", 0), *rank_pattern.values()])
    for max_rank in _RANKS:
        if rank <= max_rank:
            return {"enable_lora": True, "max_loras": 1, "max_lora_rank": max_rank}
    raise UsageError(
        f"--backend vllm: the adapter {adapter} has rank {rank}, vLLM serves up to {_RANKS[-1]};"
        f" {_MERGE}"
    )


def _adds_tokens(adapter: Path, model: Path) -> bool:
    """Return whether an adapter's tokenizer, if it has one, differs from the model's."""
    if not (adapter / "tokenizer.json").is_file():
        return False
    own: dict[str, int] = pretrained.load_tokenizer(adapter).get_vocab()
    base: dict[str, int] = pretrained.load_tokenizer(model).get_vocab()
    return own != base
