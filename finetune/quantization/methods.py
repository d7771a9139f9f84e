"""Quantization methods; each writes a folder that `transformers` loads as any other."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune.quantization import awq_mappings
from finetune.training import model_loading
from galen import pretrained
from galen.errors import DataError, UsageError, did_you_mean, install, one_line

logger = logging.getLogger(__name__)

GROUP_SIZES = (128, 64, 32)
"""Weights with a common scale in 4 bit, the first that divides the model's layers.

VLLM has kernels for all three.
"""
BLOCK_INPUTS, BLOCK_OUTPUTS = 64, 32
"""What bitsandbytes' 4-bit kernels for CPUs want to divide a layer."""


def _bitsandbytes(bits: str, model: Path, output: Path, calibration: Sequence[list[int]]) -> None:
    """Write by bitsandbytes' "8bit" (LLM.int8) or "4bit" (NF4 with double quantization)."""
    from transformers import AutoModelForCausalLM

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config = model_loading.bitsandbytes_config(bits, torch.bfloat16)
    loaded = pretrained.load_model(
        AutoModelForCausalLM,
        model,
        quantization_config=config,
        dtype=torch.bfloat16,
        use_safetensors=True,
    )
    loaded.save_pretrained(output)


def _llmcompressor(name: str, model: Path, output: Path, calibration: Sequence[list[int]]) -> None:
    """Quantize with llmcompressor, in the compressed-tensors format, which vLLM reads, too."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    loaded = pretrained.load_model(AutoModelForCausalLM, model, dtype="auto", use_safetensors=True)
    rows = Dataset.from_list(
        [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in calibration]
    )
    try:
        with _memory():
            oneshot(
                model=loaded,
                dataset=rows if len(rows) else None,
                recipe=_recipe(name, loaded),
                max_seq_length=max(map(len, calibration), default=0),
                num_calibration_samples=len(rows),
                processor=pretrained.load_tokenizer(model),
                trust_remote_code_model=False,
                log_dir=None,
            )
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"llmcompressor cannot quantise {model} by {name}: {one_line(error)}"
        ) from error
    loaded.save_pretrained(output, save_compressed=True)


def _memory() -> AbstractContextManager[object]:
    """Let llmcompressor's AWQ use unpinned memory without an accelerator."""
    if torch.accelerator.is_available():
        return nullcontext()
    from compressed_tensors.utils import patch_attr
    from llmcompressor.pipelines.cache import IntermediatesCache

    return patch_attr(IntermediatesCache, "pin_memory", lambda *_: None)


def _recipe(name: str, model: torch.nn.Module) -> list[Any]:
    """Return llmcompressor's modifiers: 4 bit in groups (BioMistral's AWQ), or 8 bit a channel.

    Raises:
        DataError: no size of groups divides the model's layers.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    if name == "int8":
        weights = QuantizationArgs(num_bits=8, symmetric=True, strategy="channel")
    else:
        weights = QuantizationArgs(
            num_bits=4, symmetric=name == "gptq", strategy="group", group_size=group_size(model)
        )
    layers = {
        "config_groups": {"linear": QuantizationScheme(targets=["Linear"], weights=weights)},
        "ignore": ["lm_head"],
    }
    if name == "awq":
        from llmcompressor.modifiers.transform.awq import AWQMapping, AWQModifier

        found = _awq_mappings(model)
        mappings = None if found is None else [AWQMapping(one, [*more]) for one, more in found]
        return [
            AWQModifier(mappings=mappings, duo_scaling="both"),
            QuantizationModifier(**layers),
        ]
    return [GPTQModifier(**layers) if name == "gptq" else QuantizationModifier(**layers)]


def _awq_mappings(model: torch.nn.Module) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """Return the layers that AWQ scales together; None for llmcompressor's own list.

    Raises:
        DataError: they are not known.
    """
    from llmcompressor.modifiers.transform import awq

    known = {*awq.AWQ_MAPPING_REGISTRY, *getattr(awq, "AWQ_DYNAMIC_MAPPING_REGISTRY", ())}
    try:
        return awq_mappings.find(type(model).__name__, known)
    except ValueError as error:
        raise DataError(str(error)) from None


def check_model(methods: Sequence[str], model: Path) -> None:
    """Check before any work that each method can store layers of this model, and their widths.

    Raises:
        DataError: one cannot, or the model's configuration cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        with torch.device("meta"):  # shapes without memory
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
    ) as error:
        raise DataError(f"{model} cannot be loaded: {one_line(error)}") from error
    _warn_of_experts(empty)
    if {"awq", "gptq"} & set(methods):
        group_size(empty)
    if "awq" in methods:
        _awq_mappings(empty)
    if "bnb4" in methods:
        _check_blocks(empty)


def _warn_of_experts(model: torch.nn.Module) -> None:
    """Warn if the model has experts, which remain as they are: they are no linear layers."""
    experts = sum(weight.numel() for weight in model.parameters() if weight.dim() == 3)
    if experts:
        every = sum(weight.numel() for weight in model.parameters())
        logger.warning(
            f"only linear layers are quantized: the experts, {experts / every:.0%} of the weights,"
            " keep their precision"
        )


def _check_blocks(model: torch.nn.Module) -> None:
    """Check that bitsandbytes can compute with all layers in 4 bit.

    Raises:
        DataError: it cannot with one.
    """
    for name, layer in _linear_layers(model).items():
        if layer.in_features % BLOCK_INPUTS or layer.out_features % BLOCK_OUTPUTS:
            raise DataError(
                f"bnb4 goes by blocks of {BLOCK_INPUTS} inputs and {BLOCK_OUTPUTS} outputs, which"
                f" do not divide the layer {name} ({layer.in_features} x {layer.out_features});"
                " bnb8 and int8 take any width"
            )


def _linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Return the layers that are stored in fewer bits: all linear ones but the last."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }


def group_size(model: torch.nn.Module) -> int:
    """Return the group size of 4-bit scales: 128, or 64 or 32 where it does not divide all inputs.

    Raises:
        DataError: none of the three does.
    """
    layers = _linear_layers(model).values()
    for size in GROUP_SIZES:
        if all(layer.in_features % size == 0 for layer in layers):
            return size
    widths = sorted({layer.in_features for layer in layers})
    raise DataError(
        "4 bit goes by groups of 128, 64 or 32 weights, none of which divides all layers' inputs"
        f" ({widths}); int8 does not"
    )


@dataclass(frozen=True, slots=True)
class Method:
    """A way to store a model in fewer bits."""

    write: Callable[[Path, Path, Sequence[list[int]]], None]
    """`write(model, output, calibration)`.

    Model folder, folder to fill, calibration texts as token ids.
    """
    package: str
    """The package that it needs."""
    calibrated: bool = False
    """Whether it needs calibration texts; the others get none."""


INSTALL = {
    "bitsandbytes": install("qlora"),
    "llmcompressor": (
        f"{install('quantize')}, best into an environment of its own (it takes only some"
        " versions of transformers); the folders it writes load anywhere with compressed-tensors"
    ),
}
METHODS = {
    "awq": Method(partial(_llmcompressor, "awq"), "llmcompressor", calibrated=True),
    "gptq": Method(partial(_llmcompressor, "gptq"), "llmcompressor", calibrated=True),
    "int8": Method(partial(_llmcompressor, "int8"), "llmcompressor"),
    "bnb4": Method(partial(_bitsandbytes, "4bit"), "bitsandbytes"),
    "bnb8": Method(partial(_bitsandbytes, "8bit"), "bitsandbytes"),
}


def check_methods(methods: Sequence[str], calibrated: bool) -> None:
    """Check methods, their packages, and calibration texts where a method needs them.

    Raises:
        UsageError: something is missing; says what to install or give.
    """
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"unknown method {name!r}; {did_you_mean(name, METHODS)}")
        method = METHODS[name]
        if importlib.util.find_spec(method.package) is None:
            raise UsageError(f"{name} needs {method.package}: {INSTALL[method.package]}")
        if method.calibrated and not calibrated:
            raise UsageError(
                f"{name} needs texts to measure activations on: give --calibration FILE"
            )


def write_quantized(
    method: str, model: Path, output: Path, calibration: Sequence[list[int]]
) -> None:
    """Write the model quantised by one method, with its tokenizer.

    Raises:
        DataError: the method cannot quantise this model.
    """
    METHODS[method].write(model, output, calibration)
    pretrained.load_tokenizer(model).save_pretrained(output)
