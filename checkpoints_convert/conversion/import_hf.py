"""Writes a model as iteration 0 of a Megatron checkpoint, a slice at a time."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert import families
from checkpoints_convert.conversion import bridge_config
from checkpoints_convert.conversion.hub_weights import open_weights
from checkpoints_convert.conversion.megatron_lm_args import common_state
from checkpoints_convert.conversion.text_part import copy_text_companions, log_left_out
from checkpoints_convert.conversion.validate import check_complete
from checkpoints_convert.conversion.weight_tasks import (
    Source,
    WeightConversionTask,
    megatron_slices,
    stacked_shape,
    tasks_by_file,
)
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.megatron_shapes import VOCAB_TENSORS, extra_states
from checkpoints_convert.hf import vocabulary
from checkpoints_convert.hf.folder import (
    TOKENIZERS,
    check_vocabulary,
    copy_companions,
    seal_companions,
)
from checkpoints_convert.hf.fused_experts import is_quantized
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.prefetch import Prefetcher, TensorSlice
from checkpoints_convert.resumable_io.resumable_steps import Step, run_steps, write_manifest
from galen import manifest
from galen.atomic import write_text
from galen.errors import OutputConflictError
from galen.run_folder import finished, resume, unknown_output
from galen.run_identity import Identity, stat_record
from megatron_ext.checkpoint import checkpoint_folder, torch_dist
from megatron_ext.config.architecture import Architecture

logger = logging.getLogger(__name__)

STAGE = "hf_to_megatron"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Import:
    """A model to import, and options."""

    hf: Path
    dtype: str | None = None
    special_tokens: Path | None = None
    new_rows: str = "mean"
    seed: int = 0
    tensor_parallel: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The options that determine the output."""
        tokens = (
            None if self.special_tokens is None else vocabulary.read_tokens(self.special_tokens)
        )
        initial: dict[str, Any] = {}
        if tokens is not None:
            initial["new_rows"] = self.new_rows
            if self.new_rows != "mean":
                initial["seed"] = self.seed
        return {
            "dtype": self.dtype,
            "special_tokens": tokens,
            "tensor_model_parallel_size": self.tensor_parallel,
            **initial,
        }


@dataclass(frozen=True)
class WriteDistcp(Step):
    """Writes some tasks into one `.distcp` file."""

    source: Source
    tasks: tuple[WeightConversionTask, ...]
    architecture: Architecture
    dtype: torch.dtype | None
    """None for each tensor's own."""
    tensor_parallel: int = 1
    """The vocabulary is padded for so many ranks."""

    def run(self, output: OutputFile, reader: Prefetcher) -> list[dict[str, Any]]:
        """Write the file and return its entries."""
        slices = [(task, row, slice_) for task in self.tasks for row, slice_ in self._slices(task)]
        entries = []
        for (task, row, _), tensor in zip(
            slices, reader.read(slice_ for *_, slice_ in slices), strict=True
        ):
            offset = (*task.index, row, *(0 for _ in tensor.shape[1:]))
            part = tensor.view(*(1 for _ in task.index), *tensor.shape)
            shape = stacked_shape(task, self.architecture, self.tensor_parallel)
            entries.append(
                torch_dist.write_entry(output, self.file, task.megatron, shape, offset, part)
            )
        return [dataclasses.asdict(entry) for entry in entries]

    def _slices(self, task: WeightConversionTask) -> Iterator[tuple[int, TensorSlice]]:
        return megatron_slices(
            task,
            self.architecture,
            self.source,
            self.dtype or self.source.dtype(task.hf[0]),
            self.tensor_parallel,
        )


def write_distcp_files(
    label: str, folder: Path, steps: Sequence[WriteDistcp], inputs: InputHashes, workers: int
) -> tuple[list[torch_dist.Entry], dict[Path, str]]:
    """Write a checkpoint's files; return their entries and the SHA-256 of inputs and outputs."""
    results, hashes = run_steps(label, folder, steps, workers, inputs)
    return [torch_dist.Entry.from_json(entry) for part in results for entry in part], hashes


def convert(job: Import, output: Path, inputs: InputHashes, workers: int = 1) -> None:
    """Write the model that `job` names as iteration 0 of the Megatron checkpoint `output`.

    `inputs` are the model's files.

    Raises:
        DataError: the model cannot be converted.
        OutputConflictError: `output` holds another one.
    """
    family, architecture = families.find(job.hf / "config.json")
    check_vocabulary(job.hf, architecture.vocab_size)
    weights = open_weights(job.hf, family, architecture)
    config = {"family": family.name, **job.options}
    if _is_complete(output, inputs.paths, config):
        return
    check_complete(weights, family, architecture)
    log_left_out(weights)
    if is_quantized(weights):
        logger.info(f"{job.hf}: MXFP4 is decoded; the checkpoint has {job.dtype or 'bf16'} weights")
    if not any((job.hf / name).is_file() for name in TOKENIZERS):
        logger.warning(
            f"{job.hf} has no tokenizer, so an export will have none either; `galen verify`"
            " needs it, or --weights-only"
        )
    source: Source = weights
    extension = None
    if job.special_tokens is not None:
        extension = vocabulary.extend(
            job.hf, vocabulary.read_tokens(job.special_tokens), architecture.vocab_size
        )
        architecture = dataclasses.replace(architecture, vocab_size=extension.vocab_size)
        names = [
            mapping.hf[0]
            for mapping in family.mappings(architecture)
            if mapping.megatron in VOCAB_TENSORS
        ]
        source = vocabulary.ExtendedWeights(weights, names, extension, job.new_rows, job.seed)
    copy_text_companions(job.hf, output / checkpoint_folder.HF)
    if extension is not None:
        extension.write(output / checkpoint_folder.HF)
    seal_companions(output / checkpoint_folder.HF)
    _write_iteration(
        source,
        family,
        architecture,
        output,
        inputs,
        config,
        workers,
        DTYPES.get(job.dtype or ""),
        job.tensor_parallel,
    )


@dataclass(frozen=True)
class ExternalModel:
    """Another trainer's model."""

    source: Source
    """Its tensors, under the names that the family has in Hugging Face; their sizes are checked."""
    files: Sequence[Path]
    """The files that they are read from."""
    family: Family
    architecture: Architecture
    hf_config: dict[str, Any]
    """Its config.json for an export to Hugging Face."""
    tokenizer: Path | None
    """A folder whose files but the weights go into the checkpoint."""
    recorded: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    """The files' records in a manifest."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the output."""
    dtype: torch.dtype | None = None
    """Precision of the output; None for each tensor's own."""


def import_external(job: ExternalModel, output: Path, workers: int) -> None:
    """Write another trainer's model as iteration 0 of the Megatron checkpoint `output`.

    Raises:
        OutputConflictError: `output` holds another checkpoint.
    """
    config = {**job.architecture.to_json(), **job.options}  # beside the files
    if _is_complete(output, job.files, config):
        return
    companions = output / checkpoint_folder.HF
    if job.tokenizer is not None:
        copy_companions(job.tokenizer, companions)
    write_text(companions / "config.json", json.dumps(job.hf_config, indent=2) + "\n")
    seal_companions(companions)
    with InputHashes(job.files, job.recorded) as inputs:
        _write_iteration(
            job.source,
            job.family,
            job.architecture,
            output,
            inputs,
            config,
            workers,
            job.dtype,
        )


def _is_complete(output: Path, inputs: Sequence[Path], config: dict[str, Any]) -> bool:
    """Return whether `output` was made from these inputs with this configuration, and say so.

    Raises:
        OutputConflictError: `output` holds something else.
    """
    iteration = checkpoint_folder.latest_iteration(output)
    if iteration is None:
        if others := checkpoint_folder.foreign(output):
            raise OutputConflictError(
                f"{output} is not a Megatron checkpoint, it holds {', '.join(others[:3])}; choose"
                " another --output"
            )
        return False
    folder = checkpoint_folder.iteration_folder(output, iteration)
    if not folder.exists():
        return False
    identity = Identity(config, [stat_record(path) for path in inputs])
    if finished(output, folder / manifest.NAME, STAGE, identity) is None:
        raise unknown_output(output)
    logger.info(f"{output} is already complete")
    return True


def _write_iteration(
    source: Source,
    family: Family,
    architecture: Architecture,
    output: Path,
    inputs: InputHashes,
    config: dict[str, Any],
    workers: int,
    dtype: torch.dtype | None = None,
    tensor_parallel: int = 1,
) -> None:
    """Write the iteration and its manifest; they appear together."""

    def location(task: WeightConversionTask) -> tuple[str, int]:
        return min(source.location(name) for name in task.hf)

    steps = []
    for number, part in enumerate(tasks_by_file(family, architecture)):
        nbytes = sum(task.nbytes(architecture, dtype or source.dtype(task.hf[0])) for task in part)
        ordered = tuple(sorted(part, key=location))
        steps.append(
            WriteDistcp(
                f"__{number}_0.distcp",
                nbytes,
                source,
                ordered,
                architecture,
                dtype,
                tensor_parallel,
            )
        )
    # the inputs are read from their first byte to their last, or nearly so
    steps.sort(key=lambda step: location(step.tasks[0]))
    with checkpoint_folder.new_iteration(output, 0) as folder:
        resume(folder, Identity(config, [stat_record(path) for path in inputs.paths]))
        entries, hashes = write_distcp_files("import", folder, steps, inputs, workers)
        written = dtype or source.dtype(family.shared[0].hf[0])
        torch_dist.finish(
            folder,
            entries,
            common_state(architecture, tensor_parallel, written),
            extra_states(architecture),
        )
        architecture.write(folder)
        bridge_config.write(folder, architecture, tensor_parallel, written)
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        write_manifest(folder, STAGE, inputs.paths, hashes, config, files, architecture)
    print(f"{output}: {family.name}, {architecture.parameters:,} parameters, iteration 0")
