"""Writes an iteration of a Megatron checkpoint as a NeMo 2 folder, a slice at a time."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert.conversion.import_hf import DTYPES, WriteDistcp, write_distcp_files
from checkpoints_convert.conversion.stored_model import StoredModel
from checkpoints_convert.conversion.validate import check_tensors
from checkpoints_convert.conversion.weight_tasks import all_tasks, tasks_by_file
from checkpoints_convert.families import FAMILIES
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.megatron_shapes import extra_states
from checkpoints_convert.hf.folder import check_companions, check_vocabulary, tokenizer_ids
from checkpoints_convert.interop import nemo_config, nemo_context
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.prefetch import Prefetcher
from checkpoints_convert.resumable_io.resumable_steps import write_manifest
from galen import atomic
from galen.run_folder import RunFolder, resume
from galen.run_identity import Identity, stat_record
from megatron_ext.checkpoint import checkpoint_folder, torch_dist
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import Architecture, read_architecture

logger = logging.getLogger(__name__)

STAGE = "megatron_to_nemo"
# State that Lightning requires of a run before its first step, and how Megatron Core shards an
# optimizer.
_COMMON: dict[str, Any] = {
    "epoch": 0,
    "global_step": 0,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": {},
    "loops": {},
    "callbacks": {},
    "optimizer_states": {},
    "lr_schedulers": [],
    "content_metadata": {
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
        "distrib_optim_sharding_type": "dp_reshardable",
    },
}


@dataclass(frozen=True)
class WriteNemoDistcp(WriteDistcp):
    """Writes some tasks into one `.distcp` file, under NeMo's names."""

    def run(self, output: OutputFile, reader: Prefetcher) -> list[dict[str, Any]]:
        """Write the file and return its entries."""
        return [
            {**entry, "key": nemo_config.PREFIX + entry["key"]}
            for entry in super().run(output, reader)
        ]


@dataclass(frozen=True)
class NemoExport:
    """An iteration to export, and options."""

    folder: Path
    """Of the iteration."""
    as_family: str | None
    dtype: str | None


def convert(
    job: NemoExport,
    output: Path,
    workers: int = 1,
    recorded: Mapping[Path, Mapping[str, Any]] | None = None,
) -> None:
    """Write the iteration that `job` names as the NeMo 2 folder `output`.

    `recorded` are its files' records in its manifest.

    Raises:
        DataError: the checkpoint is incomplete, NeMo has no such model, or `output` holds something
            else.
    """
    folder = job.folder
    architecture = read_architecture(folder)
    architecture = dataclasses.replace(architecture, family=job.as_family or architecture.family)
    nemo_config.arguments(architecture)  # refuses a model that NeMo does not have
    tokenizer = _tokenizer(folder.parent / checkpoint_folder.HF, architecture)
    inputs = [folder / ".metadata", *checkpoint_folder.weight_files(folder)]
    iteration = int(folder.name.removeprefix("iter_"))
    options = {"family": architecture.family, "iteration": iteration, "dtype": job.dtype}
    run = RunFolder(output, STAGE)
    identity = Identity(options, [stat_record(path) for path in inputs])
    if run.finished(identity) is not None:
        logger.info(f"{output} is already complete")
        return
    family = FAMILIES[architecture.family]
    stored = TorchDist(folder)
    check_tensors(stored, family, architecture)
    source = StoredModel(stored, all_tasks(family, architecture), architecture)
    if run.partial.is_symlink():
        run.partial.unlink()
    resume(run.partial / nemo_config.WEIGHTS, identity)
    atomic.remove(run.partial / nemo_config.CONTEXT)
    dtype = DTYPES.get(job.dtype or "")
    with InputHashes(inputs, recorded) as hashing:
        hashes = _write_weights(
            run.partial / nemo_config.WEIGHTS, source, family, architecture, dtype, hashing, workers
        )
    nemo_context.write(
        run.partial / nemo_config.CONTEXT,
        architecture,
        dtype or source.dtype(family.shared[0].hf[0]),
        tokenizer,
    )
    files = [path for path in sorted(run.partial.rglob("*")) if path.is_file()]
    write_manifest(run.partial, STAGE, inputs, hashes, options, files, architecture)
    run.publish()
    print(f"{output}: {architecture.family}, {architecture.parameters:,} parameters, from {folder}")


def _tokenizer(companions: Path, architecture: Architecture) -> Path | None:
    """Return the tokenizer's folder after a check that the model has its ids, or None."""
    if tokenizer_ids(companions) is None:
        return None
    check_companions(companions)
    check_vocabulary(companions, architecture.vocab_size)
    return companions


def _write_weights(
    folder: Path,
    source: StoredModel,
    family: Family,
    architecture: Architecture,
    dtype: torch.dtype | None,
    inputs: InputHashes,
    workers: int,
) -> dict[Path, str]:
    """Write `weights/` and return the SHA-256 of the inputs and of the files written."""
    steps = []
    for number, part in enumerate(tasks_by_file(family, architecture)):
        nbytes = sum(task.nbytes(architecture, dtype or source.dtype(task.hf[0])) for task in part)
        steps.append(
            WriteNemoDistcp(
                f"__{number}_0.distcp", nbytes, source, tuple(part), architecture, dtype
            )
        )
    entries, hashes = write_distcp_files("export", folder, steps, inputs, workers)
    torch_dist.finish(
        folder, entries, _COMMON, [nemo_config.PREFIX + name for name in extra_states(architecture)]
    )
    return hashes
