"""Checks that a model's files hold exactly the tensors of its configuration and family."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from checkpoints_convert.conversion.weight_tasks import (
    Source,
    WeightConversionTask,
    all_tasks,
    stacked_shape,
)
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import hf_shapes
from checkpoints_convert.families.megatron_shapes import VOCAB_TENSORS
from checkpoints_convert.hf.weights import Weights
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import Architecture


def check_complete(weights: Weights, family: Family, architecture: Architecture) -> None:
    """Check number, size and precision of a Hugging Face folder's tensors against the model.

    Raises:
        DataError: they do not match.
    """
    tasks = all_tasks(family, architecture)
    expected = {name for task in tasks for name in task.hf}
    folder = weights.files[0].parent
    if missing := expected - weights.names():
        raise DataError(
            f"{folder} lacks {len(missing)} tensors that config.json calls for: {_some(missing)}"
        )
    for task in tasks:
        check_shapes(task, architecture, weights, folder)
    _check_dtypes(tasks, weights)
    surplus = {
        name for name in weights.names() - expected if not name.endswith("rotary_emb.inv_freq")
    }
    if architecture.share_embeddings_and_output_weights and surplus == set(family.output.hf):
        embedding = family.shared[0].hf[0]
        output = family.output.hf[0]
        if not _equal(weights, embedding, output):
            raise DataError(
                f"config.json ties {output} to the embedding, but the file holds a different tensor"
            )
        surplus = set()
    if surplus:
        raise DataError(
            f"a {family.name} model has no such tensors ({len(surplus)}): {_some(surplus)}; is"
            " model_type in config.json right?"
        )


def _check_dtypes(tasks: Sequence[WeightConversionTask], weights: Weights) -> None:
    """Check that tensors that are one in Megatron, stacked over the layers, have one precision.

    Raises:
        DataError: two have not; names them.
    """
    first: dict[str, str] = {}
    for task in tasks:
        for name in task.hf:
            other = first.setdefault(task.megatron, name)
            if weights.dtype(name) != weights.dtype(other):
                dtypes = ", ".join(
                    f"{one} is {str(weights.dtype(one)).removeprefix('torch.')}"
                    for one in (other, name)
                )
                raise DataError(
                    f"{weights.files[0].parent}: {dtypes}, but Megatron has them in one tensor;"
                    " save the model in one precision first"
                )


def check_shapes(
    task: WeightConversionTask, architecture: Architecture, source: Source, where: object
) -> None:
    """Check that the Hugging Face tensors of a task have the sizes of the configuration.

    Raises:
        DataError: one has not; names the numbers.
    """
    for name, expected in zip(task.hf, hf_shapes(task.mapping, architecture), strict=True):
        if source.shape(name) != expected:
            raise DataError(
                f"{where}: {name} has the size {list(source.shape(name))}, config.json requires"
                f" {list(expected)}"
            )


def check_tensors(stored: TorchDist, family: Family, architecture: Architecture) -> None:
    """Check that a Megatron checkpoint has the tensors of the family, in their sizes.

    Raises:
        DataError: one is missing, is too many, or has another size; says which numbers differ and
            what to do.
    """
    tasks = all_tasks(family, architecture)
    if missing := sorted(
        {task.megatron for task in tasks if not stored.holds(task.megatron, task.index)}
    ):
        raise DataError(
            f"{stored.folder} lacks {', '.join(missing)}: it is not a {family.name} model"
        )
    known = {stored.key(task.megatron, task.index) for task in tasks}
    model = {
        name
        for name in stored.tensors
        if name.startswith(("decoder.", "embedding.", "output_layer."))
    }
    if surplus := {name for name in model - known if "_extra_state" not in name}:
        raise DataError(
            f"{stored.folder} has tensors that a {family.name} model does not have:"
            f" {_some(surplus)}"
        )
    for task in tasks:
        key = stored.key(task.megatron, task.index)
        actual = tuple(stored.tensors[key].size)
        expected = stacked_shape(task, architecture, 1)
        if key != task.megatron:  # the layers are numbered
            expected = expected[1:]
        hint = ""
        if task.megatron in VOCAB_TENSORS:
            if actual[0] >= architecture.vocab_size:
                expected = (actual[0], *expected[1:])  # padded for any number of ranks
            else:
                hint = (
                    f": the tokenizer and config.json have {architecture.vocab_size:,} ids, the"
                    f" checkpoint {actual[0]:,} rows; import the model again with `galen import`"
                    " --add-special-tokens, or export with the --hf folder it was trained with"
                )
        if actual != expected:
            raise DataError(
                f"{stored.folder}: {task.megatron} has the size {list(actual)}, the model requires"
                f" {list(expected)}{hint}"
            )


def differences(first: Architecture, second: Architecture) -> str:
    """Name the fields in which two architectures differ, with the values of both."""
    pairs = zip(dataclasses.asdict(first).items(), dataclasses.asdict(second).values(), strict=True)
    return "; ".join(
        f"{name} is {value!r} instead of {other!r}"
        for (name, value), other in pairs
        if value != other
    )


def _equal(weights: Weights, first: str, second: str) -> bool:
    """Compare two tensors some rows at a time."""
    rows = weights.shape(first)[0]
    return weights.shape(second)[0] == rows and all(
        same_bits(
            weights.rows(first, start, min(start + 4096, rows)),
            weights.rows(second, start, min(start + 4096, rows)),
        )
        for start in range(0, rows, 4096)
    )


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors hold the same bits; a NaN equals itself."""
    return first.dtype == second.dtype and first.reshape(-1).view(torch.uint8).equal(
        second.reshape(-1).view(torch.uint8)
    )


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")


def missing(source: TorchDist) -> str | None:
    """Return what a checkpoint lacks, or None: files, bytes of a file, or parts of a tensor."""
    needed: dict[str, int] = {}
    for name, end in source.file_ends():
        needed[name] = max(needed.get(name, 0), end)
    for name, end in sorted(needed.items()):
        path = source.folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size < end:
            return f"{name} has {path.stat().st_size:,} bytes, its parts end at {end:,}"
    for name, value in source.tensors.items():
        num_stored = sum(math.prod(chunk.sizes) for chunk in value.chunks)
        if num_stored < math.prod(value.size):
            return f"{name} has {num_stored:,} of {math.prod(value.size):,} numbers"
    if not (source.folder / "metadata.json").is_file():
        return "metadata.json is missing"
    return None
