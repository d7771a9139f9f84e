"""What a model family is: how its configuration and its tensors correspond to Megatron's."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints_convert.mappings import Mapping
from galen.errors import DataError
from megatron_ext.architecture import Architecture


@dataclass(frozen=True)
class Family:
    """One family, declared in its own file under `families/`."""

    name: str
    """`model_type` of the Hugging Face configuration."""
    architecture: Callable[[dict[str, Any]], Architecture]
    """Reads a config.json; raises ValueError naming a field that changes the function and cannot be carried over."""
    config: Callable[[Architecture], dict[str, Any]]
    """Writes the fields of a config.json that `architecture` reads."""
    shared: Sequence[Mapping]
    """Tensors that exist once."""
    output: Mapping
    """The output layer, absent where it is tied to the embedding."""
    layer: Sequence[Mapping]
    """Tensors of each layer."""
    reference: str = "transformers"
    """What computes the original's logits for verify.py: transformers, or a module with `logits(folder, tokens, dtype)`."""

    def mappings(self, architecture: Architecture) -> list[Mapping]:
        """Return the mappings of the tensors that exist once, for this model."""
        return [*self.shared] if architecture.share_embeddings_and_output_weights else [*self.shared, self.output]


def find(config_path: str | Path) -> tuple[Family, Architecture]:
    """Return the family and architecture that a Hugging Face config.json describes.

    Raises:
        DataError: the file is missing or damaged, the family unknown, or a field cannot be carried over.
    """
    from checkpoints_convert.families import FAMILIES

    config = read_config(config_path)
    name = config.get("model_type")
    if name not in FAMILIES:
        raise DataError(f"{config_path}: model_type {name!r} cannot be converted; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name], architecture_of(FAMILIES[name], config, config_path)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; a Hugging Face model folder has one") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} should hold one JSON object")
    return config


def architecture_of(family: Family, config: dict[str, Any], path: str | Path) -> Architecture:
    """Return the architecture that a configuration of this family describes; `path` names it in messages.

    Raises:
        DataError: a field is missing or cannot be carried over.
    """
    try:
        return family.architecture(config)
    except KeyError as error:
        raise DataError(f"{path}: the field {error} is missing") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
