"""The model that is trained: loaded from its folder, with a low-rank adapter or all weights free."""

from pathlib import Path
from typing import Any

import torch

from finetune.recipe import Lora, Model
from galen.errors import DataError, UsageError


def load(model: Model) -> tuple[Any, Any]:
    """Return network and tokenizer of a Hugging Face folder.

    Raises:
        DataError: `transformers` cannot load it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path)
        network = AutoModelForCausalLM.from_pretrained(model.path, dtype=getattr(torch, model.dtype))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{model.path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    network.config.use_cache = False  # a cache of keys and values only costs memory in training
    return network, tokenizer


def add_lora(network: Any, lora: Lora) -> Any:
    """Return the network with a fresh adapter; only the adapter's weights are trained. The adapter starts as no change.

    Raises:
        UsageError: a target module is not in the network; names those that are.
    """
    from peft import LoraConfig, get_peft_model

    linear = sorted({name.rsplit(".", 1)[-1] for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)})
    if isinstance(lora.target_modules, list):
        unknown = [name for name in lora.target_modules if name not in linear]
        if unknown:
            raise UsageError(f"lora.target_modules: this model has no linear layer {unknown[0]!r}; it has {', '.join(linear)}")
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, config)


def trainable(network: torch.nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Save the adapter (or without one the model) and the tokenizer to a folder."""
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
