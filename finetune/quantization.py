"""Ways to store a model in fewer bits. Each writes a folder that `transformers` loads as any other."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from finetune import network
from galen.errors import DataError, UsageError, one_line

Write = Callable[[Path, Path, Sequence[list[int]]], None]
"""`write(model, output, calibration)`: model folder, folder to fill, calibration texts as token ids."""

GROUP_SIZES = (128, 64, 32)
"""Weights that share a scale in 4 bit, the first that divides the model's layers; vLLM has kernels for all three."""


def bitsandbytes(kind: str) -> Write:
    """Return the writer of bitsandbytes' "8bit" (LLM.int8) or "4bit" (NF4 with double quantization). Needs no calibration."""

    def write(model: Path, output: Path, calibration: Sequence[list[int]]) -> None:
        from transformers import AutoModelForCausalLM

        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        config, dtype = network.bitsandbytes(kind, torch.bfloat16), torch.bfloat16
        AutoModelForCausalLM.from_pretrained(model, quantization_config=config, dtype=dtype).save_pretrained(output)

    return write


def llmcompressor(name: str) -> Write:
    """Return the writer of a method of llmcompressor; files in the compressed-tensors format, which vLLM reads, too."""

    def write(model: Path, output: Path, calibration: Sequence[list[int]]) -> None:
        from datasets import Dataset
        from llmcompressor import oneshot
        from transformers import AutoModelForCausalLM, AutoTokenizer

        network = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        rows = Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in calibration])
        longest = max(map(len, calibration), default=0)
        try:
            with _memory():
                oneshot(
                    model=network,
                    dataset=rows if len(rows) else None,
                    recipe=_recipe(name, network),
                    max_seq_length=longest,
                    num_calibration_samples=len(rows),
                    processor=AutoTokenizer.from_pretrained(model),
                    log_dir=None,
                )
        except (ValueError, RuntimeError) as error:
            raise DataError(f"llmcompressor cannot quantise {model} by {name}: {one_line(error)}") from error
        network.save_pretrained(output, save_compressed=True)

    return write


def _memory() -> AbstractContextManager[object]:
    """Let llmcompressor's AWQ keep activations in plain memory where there is no accelerator to pin memory for."""
    if torch.accelerator.is_available():
        return nullcontext()
    from compressed_tensors.utils import patch_attr
    from llmcompressor.pipelines.cache import IntermediatesCache

    return patch_attr(IntermediatesCache, "pin_memory", lambda *_: None)


def _recipe(name: str, network: torch.nn.Module) -> list[Any]:
    """Return llmcompressor's modifiers: 4 bit in groups of weights as BioMistral's AWQ models, or 8 bit a channel.

    Raises:
        DataError: no size of groups divides the model's layers.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    if name == "int8":
        weights = QuantizationArgs(num_bits=8, symmetric=True, strategy="channel")
    else:
        weights = QuantizationArgs(num_bits=4, symmetric=name == "gptq", strategy="group", group_size=group_size(network))
    layers = {"config_groups": {"linear": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": ["lm_head"]}
    if name == "awq":
        from llmcompressor.modifiers.transform.awq import AWQModifier

        return [AWQModifier(duo_scaling="both"), QuantizationModifier(**layers)]
    return [GPTQModifier(**layers) if name == "gptq" else QuantizationModifier(**layers)]


def group_size(network: torch.nn.Module) -> int:
    """Return how many weights share a scale in 4 bit: 128, or 64 or 32 where that does not divide the inputs of all layers.

    Raises:
        DataError: none of the three does.
    """
    layers = [module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"]
    for size in GROUP_SIZES:
        if all(layer.in_features % size == 0 for layer in layers):
            return size
    widths = sorted({layer.in_features for layer in layers})
    raise DataError(f"4 bit goes by groups of 128, 64 or 32 weights, none of which divides all layers' inputs ({widths}); int8 does not")


METHODS: dict[str, tuple[Write, str, bool]] = {
    "awq": (llmcompressor("awq"), "llmcompressor", True),
    "gptq": (llmcompressor("gptq"), "llmcompressor", True),
    "int8": (llmcompressor("int8"), "llmcompressor", False),
    "bnb4": (bitsandbytes("4bit"), "bitsandbytes", False),
    "bnb8": (bitsandbytes("8bit"), "bitsandbytes", False),
}
"""Method to its writer, the package it needs, and whether it needs calibration texts."""


def check(methods: Sequence[str], calibrated: bool) -> None:
    """Check that methods are known, their packages are here, and calibration texts where one needs them.

    Raises:
        UsageError: something is missing; says what to install or give.
    """
    import importlib.util

    for name in methods:
        if name not in METHODS:
            raise UsageError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
        _, package, calibration = METHODS[name]
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"{name} needs {package}: pip install 'galen[quantize]', best into an environment of its own (llmcompressor takes "
                "only some versions of transformers); the folders it writes load anywhere with compressed-tensors"
            )
        if calibration and not calibrated:
            raise UsageError(f"{name} needs texts to measure activations on: give --calibration FILE")


def write(method: str, model: Path, output: Path, calibration: Sequence[list[int]]) -> None:
    """Write the model quantised by one method, with its tokenizer.

    Raises:
        DataError: the method cannot quantise this model.
    """
    from transformers import AutoTokenizer

    METHODS[method][0](model, output, calibration)
    AutoTokenizer.from_pretrained(model).save_pretrained(output)
