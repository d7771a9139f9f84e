"""The architecture that a run trains: its checkpoint's, with the rotary positions of the recipe."""

import dataclasses
from pathlib import Path
from typing import Any

from galen.errors import DataError, UsageError
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import Architecture, read_architecture
from megatron_ext.config.rope import LLAMA3_SCALING, YARN_OPTIONS, Rope, RopeScaling, Yarn
from megatron_ext.config.sections import Model


def architecture_from_model(model: Model) -> Architecture:
    """Return a recipe's architecture: its checkpoint's, or before one exists, its file's.

    The rotary positions are those of `model.rope`, if it is set. The checkpoint need not exist if
    `model.architecture` is set.

    Raises:
        DataError: neither can be read, or the two differ.
        UsageError: `model.rope` does not suit the model.
    """
    architecture = _architecture_from_files(model.checkpoint, model.architecture)
    return architecture if model.rope is None else with_rope(architecture, model.rope)


def with_rope(architecture: Architecture, rope: Rope) -> Architecture:
    """Return a checkpoint's architecture with other rotary positions.

    Raises:
        UsageError: the scaling has no effect on the positions of the model.
    """
    changes: dict[str, Any] = {}
    if rope.rotary_base is not None:
        changes["rotary_base"] = rope.rotary_base
    if rope.rope_scaling is not None:
        if architecture.max_seq_length is not None:
            raise UsageError(
                "model.rope.rope_scaling is not supported for this model, whose own scaling"
                " (longrope, or llama_4_scaling_beta with YaRN) depends on the sequence length;"
                " remove it"
            )
        changes |= _scaling_fields(rope.rope_scaling, architecture)
    if rope.max_position_embeddings is not None:
        changes["max_position_embeddings"] = rope.max_position_embeddings
    changed = dataclasses.replace(architecture, **changes)
    if rope.rope_scaling is not None:
        _check_positions(rope.rope_scaling.rope_type, changed)
    return changed


def _architecture_from_files(checkpoint: str, json_path: str | None) -> Architecture:
    if json_path is not None and checkpoint_folder.latest_iteration(checkpoint) is None:
        return read_architecture(json_path)
    architecture = read_architecture(checkpoint_folder.newest(checkpoint))
    if json_path is not None:
        _check_same(architecture, checkpoint, read_architecture(json_path), json_path)
    return architecture


def _check_same(
    actual: Architecture, checkpoint: str | Path, expected: Architecture, json_path: str | Path
) -> None:
    differences = []
    for field in dataclasses.fields(Architecture):
        in_checkpoint = getattr(actual, field.name)
        in_file = getattr(expected, field.name)
        if in_checkpoint != in_file:
            differences.append(
                f"{field.name}: {in_checkpoint} in the checkpoint, {in_file} described"
            )
    if differences:
        raise DataError(
            f"{checkpoint} is not the model that model.architecture = {json_path} describes"
            f" ({'; '.join(differences)})"
        )


def _scaling_fields(scaling: RopeScaling, architecture: Architecture) -> dict[str, Any]:
    """Return the fields of the architecture that a scaling sets."""
    fields: dict[str, Any] = {
        "rope_scaling_factor": None,
        "yarn": None,
        "seq_len_interpolation_factor": None,
    }
    if scaling.rope_type == "llama3":
        fields["rope_scaling_factor"] = scaling.factor
    elif scaling.rope_type == "yarn":
        options = {
            name: getattr(scaling, name)
            for name in ("factor", *YARN_OPTIONS)
            if getattr(scaling, name) is not None
        }
        original = scaling.original_max_position_embeddings or _original_positions(architecture)
        yarn = Yarn(original_max_position_embeddings=original, **options)
        fields["yarn"] = yarn
        fields["max_position_embeddings"] = round(yarn.factor * original)
    return fields


def _original_positions(architecture: Architecture) -> int:
    """Return the positions of a model before its scaling, if any."""
    if architecture.yarn is not None:
        return architecture.yarn.original_max_position_embeddings
    return architecture.max_position_embeddings


def _check_positions(rope_type: str, architecture: Architecture) -> None:
    """Check that a model has more positions than before its scaling."""
    if rope_type == "default":
        return
    original = int(LLAMA3_SCALING["original_max_position_embeddings"])
    if architecture.yarn is not None:
        original = architecture.yarn.original_max_position_embeddings
    if architecture.max_position_embeddings <= original:
        raise UsageError(
            "model.rope.rope_scaling: the model has"
            f" {architecture.max_position_embeddings} positions, no more than the {original} before"
            " the scaling; set model.rope.max_position_embeddings to the new context length"
        )
