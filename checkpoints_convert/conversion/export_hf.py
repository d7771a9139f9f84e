"""Writes an iteration of a Megatron checkpoint as a Hugging Face folder, a slice at a time."""

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert import families
from checkpoints_convert.conversion.import_hf import DTYPES
from checkpoints_convert.conversion.stored_model import StoredModel
from checkpoints_convert.conversion.text_part import copy_text_companions
from checkpoints_convert.conversion.validate import check_tensors, differences
from checkpoints_convert.conversion.weight_tasks import (
    Source,
    WeightConversionTask,
    all_tasks,
    hf_slices,
    tasks_by_file,
)
from checkpoints_convert.families import FAMILIES, hf_config
from checkpoints_convert.families.base import Family
from checkpoints_convert.hf.folder import (
    INDEX,
    check_companions,
    check_vocabulary,
)
from checkpoints_convert.hf.fused_experts import FusedExperts, fused_name
from checkpoints_convert.hf.weights import header
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.prefetch import Prefetcher
from checkpoints_convert.resumable_io.resumable_steps import Step, run_steps, write_manifest
from galen.atomic import write_text
from galen.errors import DataError
from galen.run_folder import RunFolder
from galen.run_identity import Identity, stat_record
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import ARCHITECTURE_FILE, Architecture, read_architecture

logger = logging.getLogger(__name__)

STAGE = "megatron_to_hf"


@dataclass(frozen=True)
class Export:
    """An iteration to export, and options."""

    folder: Path
    """Of the iteration."""
    hf: Path | None
    """Folder of config.json and tokenizer, None for the one beside the iteration."""
    as_family: str | None
    dtype: str | None
    shard_bytes: int
    """Largest file."""


@dataclass(frozen=True)
class WriteShard(Step):
    """Writes some tensors into one safetensors file."""

    source: Source
    names: tuple[str, ...]
    dtype: torch.dtype | None
    """None for each tensor's own."""

    def run(self, output: OutputFile, reader: Prefetcher) -> None:
        """Write the file."""
        tensors = {
            name: (self.dtype or self.source.dtype(name), self.source.shape(name))
            for name in self.names
        }
        output.write(header(tensors))
        for rows in reader.read(
            slice_
            for name, (dtype, _) in tensors.items()
            for slice_ in hf_slices(name, self.source, dtype)
        ):
            output.write(rows.view(-1).view(torch.uint8).numpy().data)


def convert(job: Export, output: Path, inputs: InputHashes, workers: int = 1) -> None:
    """Write the iteration that `job` names as the Hugging Face folder `output`.

    `inputs` are the iteration's files.

    Raises:
        DataError: the checkpoint is incomplete or does not fit its configuration, or `output` holds
            something else.
    """
    companions = job.hf or job.folder.parent / checkpoint_folder.HF
    family, architecture, config = _target(job, companions)
    if companions.is_dir():
        check_companions(companions)
        check_vocabulary(companions, architecture.vocab_size)
    options = {
        "family": family.name,
        "iteration": int(job.folder.name.removeprefix("iter_")),
        "dtype": job.dtype,
        "max_shard_bytes": job.shard_bytes,
    }
    run = RunFolder(output, STAGE)
    identity = Identity(options, [stat_record(path) for path in inputs.paths])
    if run.finished(identity) is not None:
        logger.info(f"{output} is already complete")
        return
    stored = TorchDist(job.folder)
    check_tensors(stored, family, architecture)
    source = _source(stored, family, architecture)
    steps = _shards(job, source, family, architecture)
    folder = run.partial
    run.resume(identity)
    _, hashes = run_steps("export", folder, steps, workers, inputs)
    written = copy_text_companions(companions, folder) if companions.is_dir() else []
    dtype = DTYPES.get(job.dtype or "") or source.dtype(family.shared[0].hf[0])
    written += _write_config(folder, config, dtype)
    written += _write_index(folder, steps)
    files = sorted({*written, *(folder / step.file for step in steps)})
    write_manifest(folder, STAGE, inputs.paths, hashes, options, files, architecture)
    run.publish()
    print(f"{output}: {family.name}, {architecture.parameters:,} parameters, from {job.folder}")


def _target(job: Export, companions: Path) -> tuple[Family, Architecture, dict[str, Any] | None]:
    """Return the family to write, the architecture and a new configuration.

    The configuration is None when the existing one is this family's.
    """
    architecture = read_architecture(job.folder)
    name = job.as_family or architecture.family
    if name not in FAMILIES:
        raise DataError(f"family {name!r} is not known; known: {', '.join(sorted(FAMILIES))}")
    config = FAMILIES[name].config(architecture)
    path = companions / "config.json"
    if path.is_file():
        is_same = _compare_config(job, path, architecture)
        if is_same and name == architecture.family:
            return FAMILIES[name], architecture, None
        old = families.text_config(path) or families.read_config(path)
        if name == architecture.family:
            config = hf_config.with_rope(old, config)
        config |= {
            key: old[key]
            for key in ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
            if key in old
        }
    expected = dataclasses.replace(architecture, family=name)
    written = families.architecture_of(FAMILIES[name], config, f"config.json of {name}")
    if written != expected:
        raise DataError(
            f"a {architecture.family} model cannot be written as {name}:"
            f" {differences(written, expected)}"
        )
    return FAMILIES[name], expected, config


def _compare_config(job: Export, path: Path, architecture: Architecture) -> bool:
    """Compare the model of a config.json with the checkpoint's; return whether it is the same.

    A run with `model.rope` keeps the config.json of its initial checkpoint, which may differ in the
    rotary positions.

    Raises:
        DataError: it is another model.
    """
    _, configured = families.find(path)
    if configured == architecture:
        return True
    found = differences(configured, architecture)
    differs_in_rope = _without_rope(configured) == _without_rope(architecture)
    if job.hf is not None or not differs_in_rope:
        fix = "give the folder of the right one with --hf"
        if differs_in_rope:
            fix += ", or, if the run had model.rope, omit --hf"
        raise DataError(
            f"{path} describes another model than {job.folder / ARCHITECTURE_FILE}: {found}; {fix}"
        )
    logger.info(f"config.json gets the rotary positions of the run: {found}")
    return False


def _without_rope(architecture: Architecture) -> Architecture:
    """Return the architecture without what `model.rope` of a pretraining recipe changes."""
    return dataclasses.replace(
        architecture,
        max_position_embeddings=1,
        rotary_base=1.0,
        rope_scaling_factor=None,
        yarn=None,
        longrope=None,
        llama_4_scaling_beta=None,
        seq_len_interpolation_factor=None,
    )


def _source(stored: TorchDist, family: Family, architecture: Architecture) -> Source:
    """Return the tensors of a Megatron checkpoint as a Hugging Face file has them."""
    tasks = all_tasks(family, architecture)
    source = StoredModel(stored, tasks, architecture)
    if not family.fused_experts:
        return source
    return FusedExperts(source, (name for task in tasks for name in task.hf))


def _shards(
    job: Export, source: Source, family: Family, architecture: Architecture
) -> list[WriteShard]:
    """Divide the tensors among files of at most `shard_bytes`, in the order of the layers."""
    dtype = DTYPES.get(job.dtype or "")
    shards: list[list[str]] = [[]]
    sizes = [0]
    for part in tasks_by_file(family, architecture):
        for names in _groups(part, source, family):
            nbytes = sum(_nbytes(source, name, dtype) for name in names)
            if sizes[-1] and sizes[-1] + nbytes > job.shard_bytes:
                shards.append([])
                sizes.append(0)
            shards[-1] += names
            sizes[-1] += nbytes
    count = len(shards)
    files = (
        ["model.safetensors"]
        if count == 1
        else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    )
    return [
        WriteShard(file, size, source, tuple(names), dtype)
        for file, size, names in zip(files, sizes, shards, strict=True)
    ]


def _groups(
    tasks: Sequence[WeightConversionTask], source: Source, family: Family
) -> list[list[str]]:
    """Return the Hugging Face tensors of some tasks, those of one Megatron tensor together."""
    groups = [task.hf for task in tasks]
    if family.fused_experts:
        names = dict.fromkeys(fused_name(name) for group in groups for name in group)
        groups = [[name] for name in names]
    return sorted(groups, key=lambda names: source.location(names[0]))


def _nbytes(source: Source, name: str, dtype: torch.dtype | None) -> int:
    return math.prod(source.shape(name)) * (dtype or source.dtype(name)).itemsize


def _write_config(folder: Path, new: dict[str, Any] | None, dtype: torch.dtype) -> list[Path]:
    """Write config.json where it is new or names another precision than the weights have.

    An equal file stays as it was copied. Quantized weights were decoded when they were imported.
    """
    path = folder / "config.json"
    name = str(dtype).removeprefix("torch.")
    config = families.read_config(path) if new is None else new
    field = "dtype" if "dtype" in config else "torch_dtype"
    if config.pop("quantization_config", None) is not None:
        logger.info(f"{name} weights are written; quantization_config is removed from config.json")
        new = config
    if new is not None or config.get(field) != name:
        write_text(path, json.dumps({**config, field: name}, indent=2, ensure_ascii=False) + "\n")
    return [path]


def _write_index(folder: Path, steps: list[WriteShard]) -> list[Path]:
    """Write the index, for more than one file."""
    if len(steps) == 1:
        return []
    files = {name: step.file for step in steps for name in step.names}
    index = {"metadata": {"total_size": sum(step.nbytes for step in steps)}, "weight_map": files}
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")
    return [folder / INDEX]
