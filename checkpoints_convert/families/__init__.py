"""The model families that can be converted, and which of them a config.json names.

A new one is a file here and a line in `FAMILIES`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from checkpoints_convert.families import (
    apertus,
    gemma,
    gpt_oss,
    internlm2,
    llama,
    mistral,
    mixtral,
    olmo,
    olmoe,
    phi,
    qwen,
    qwen_moe,
)
from checkpoints_convert.families.base import Family
from galen import json_file
from galen.errors import DataError, malformed
from megatron_ext.config.architecture import Architecture

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        mistral.MINISTRAL,
        mistral.MINISTRAL3,
        qwen.QWEN2,
        qwen.QWEN3,
        internlm2.FAMILY,
        olmo.OLMO2,
        olmo.OLMO3,
        gemma.TEXT,
        apertus.FAMILY,
        phi.FAMILY,
        gpt_oss.FAMILY,
        mixtral.FAMILY,
        olmoe.FAMILY,
        qwen_moe.QWEN2,
        qwen_moe.QWEN3,
    )
}
"""By `model_type` of the Hugging Face configuration."""

MULTIMODAL: dict[str, Family] = {
    "gemma3": gemma.TEXT_OF_MULTIMODAL,
    "mistral3": mistral.MULTIMODAL,
}
"""Families whose text model is read from a multimodal folder, by the folder's `model_type`.

A text folder is written.
"""


def find(config_path: str | Path) -> tuple[Family, Architecture]:
    """Return the family and architecture that a Hugging Face config.json describes.

    Raises:
        DataError: the file is missing or damaged, the family unknown, or a field is not
            supported.
    """
    config = read_config(config_path)
    name = config.get("model_type")
    known = FAMILIES | MULTIMODAL
    if not isinstance(name, str) or name not in known:
        raise DataError(
            f"{config_path}: model_type {name!r} cannot be converted; known:"
            f" {', '.join(sorted(known))}"
        )
    family = known[name]
    if family.text_config is not None:
        with malformed(config_path):
            text_model = family.text_config(config)["model_type"]
        family = dataclasses.replace(
            FAMILIES[text_model], text_config=family.text_config, text_tensor=family.text_tensor
        )
    return family, architecture_of(family, config, config_path)


def text_config(config_path: str | Path) -> dict[str, Any] | None:
    """Return the text model's config.json if a folder is multimodal, else None.

    Raises:
        DataError: the file is missing or damaged, or a field is not supported.
    """
    config = read_config(config_path)
    family = MULTIMODAL.get(str(config.get("model_type")))
    if family is None or family.text_config is None:
        return None
    with malformed(config_path):
        return family.text_config(config)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        DataError: it is missing or damaged.
    """
    if not Path(path).exists():
        raise DataError(
            f"cannot read {path}: it does not exist; a Hugging Face model folder has one"
        )
    return json_file.read_object(path)


def architecture_of(family: Family, config: dict[str, Any], path: str | Path) -> Architecture:
    """Return the architecture that a configuration of this family describes.

    `path` names it in messages.

    Raises:
        DataError: a field is missing or is not supported.
    """
    with malformed(path):
        if family.text_config is not None:
            config = family.text_config(config)
        return family.architecture(config)
