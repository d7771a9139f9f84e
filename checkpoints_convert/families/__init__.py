"""The model families that can be converted, and which of them a config.json names.

A new one is a file here and a line in `FAMILIES`.
"""

from pathlib import Path
from typing import Any

from checkpoints_convert.families import apertus, internlm2, llama, mistral, phi, qwen
from checkpoints_convert.families.base import Family
from galen import json_file
from galen.errors import DataError, malformed
from megatron_ext.config.architecture import Architecture

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        qwen.QWEN2,
        qwen.QWEN3,
        internlm2.FAMILY,
        apertus.FAMILY,
        phi.FAMILY,
    )
}
"""By `model_type` of the Hugging Face configuration."""


def find(config_path: str | Path) -> tuple[Family, Architecture]:
    """Return the family and architecture that a Hugging Face config.json describes.

    Raises:
        DataError: the file is missing or damaged, the family unknown, or a field is not
            supported.
    """
    config = read_config(config_path)
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise DataError(
            f"{config_path}: model_type {name!r} cannot be converted; known:"
            f" {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name], architecture_of(FAMILIES[name], config, config_path)


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
        return family.architecture(config)
