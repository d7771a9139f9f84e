"""Sampling settings of generated answers: given, or of the model's generation_config.json.

Needs no torch.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galen import json_file
from galen.errors import DataError

CONFIG = "generation_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen; the default is greedy decoding.

    The order is that of transformers: repetition penalty, temperature, top-k, top-p.
    """

    temperature: float = 0.0
    """0 is greedy decoding; top_p and top_k are then unused."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability; 1: all."""
    top_k: int = 0
    """Only so many of the most likely tokens; 0: all."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that have occurred, multiplies the negative ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """What a model's generation_config.json recommends; None where it does not say."""

    temperature: float
    """0 where it does not sample."""
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


def model_defaults(folder: Path) -> ModelDefaults:
    """Return the generation settings that a model recommends: greedy decoding without the file.

    As in transformers, temperature, top_p and top_k count only with `do_sample`; a temperature
    that is not given is 1.

    Raises:
        DataError: a value is not a number in its range.
    """
    path = folder / CONFIG
    config = json_file.read_object(path) if path.is_file() else {}
    penalty = _number(path, config, "repetition_penalty", above=0.0)
    length = _integer(path, config, "max_new_tokens")
    temperature = _number(path, config, "temperature", above=-math.inf)
    samples = config.get("do_sample")
    if samples is not None and not isinstance(samples, bool):
        raise DataError(f"{path}: do_sample = {str(samples)[:100]!r} is neither true nor false")
    if not samples:
        return ModelDefaults(
            temperature=0.0, repetition_penalty=penalty, max_new_tokens=length or None
        )
    if temperature is not None and temperature < 0:
        raise DataError(f"{path}: temperature = {temperature} is below 0")
    top_p = _number(path, config, "top_p", above=0.0)
    if top_p is not None and top_p > 1:
        raise DataError(f"{path}: top_p = {top_p} is above 1")
    return ModelDefaults(
        temperature=1.0 if temperature is None else temperature,
        top_p=top_p,
        top_k=_integer(path, config, "top_k"),
        repetition_penalty=penalty,
        max_new_tokens=length or None,
    )


def _number(path: Path, config: dict[str, Any], key: str, above: float) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= above:
        raise DataError(f"{path}: {key} = {str(value)[:100]!r} is not a number above {above:g}")
    return float(value)


def _integer(path: Path, config: dict[str, Any], key: str) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"{path}: {key} = {str(value)[:100]!r} is not a number from 0 on")
    return value
