"""Writes an iteration of a Megatron checkpoint as a NeMo 2 folder, a piece at a time."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert import nemo_config, nemo_context
from checkpoints_convert.exporting import check_tensors
from checkpoints_convert.families import FAMILIES
from checkpoints_convert.hf_folder import check_vocabulary, tokenizer_ids
from checkpoints_convert.importing import DTYPES, WritePart
from checkpoints_convert.input_hashes import InputHashes
from checkpoints_convert.output_file import OutputFile
from checkpoints_convert.read_ahead import ReadAhead
from checkpoints_convert.shapes import extra_states
from checkpoints_convert.steps import begin, finished, record, run_steps
from checkpoints_convert.stored_model import StoredModel
from checkpoints_convert.units import units
from megatron_ext import architecture as architectures
from megatron_ext import checkpoint_folder, torch_dist
from megatron_ext.architecture import Architecture
from megatron_ext.torch_dist import TorchDist

STAGE = "megatron_to_nemo"
# What Lightning looks for beside the weights of a run that has made no step yet, and how Megatron Core is to shard an optimizer.
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
class WriteNemoPart(WritePart):
    """Writes some units into one `.distcp` file, under NeMo's names."""

    def run(self, output: OutputFile, reader: ReadAhead) -> list[dict[str, Any]]:
        """Write the file and return its entries."""
        return [{**entry, "key": nemo_config.PREFIX + entry["key"]} for entry in super().run(output, reader)]


@dataclass(frozen=True)
class NemoExport:
    """What to export and how."""

    megatron: Path
    iteration: int | None = None
    as_family: str | None = None
    dtype: str | None = None


def convert(job: NemoExport, output: Path, workers: int = 1) -> None:
    """Write one iteration of a checkpoint as the NeMo 2 folder `output`.

    Raises:
        DataError: the checkpoint is incomplete, NeMo has no such model, or `output` holds something else.
    """
    folder = checkpoint_folder.find_iteration(job.megatron, job.iteration)
    architecture = architectures.read(folder)
    architecture = dataclasses.replace(architecture, family=job.as_family or architecture.family)
    nemo_config.arguments(architecture)  # refuses what NeMo does not have
    tokenizer = _tokenizer(job.megatron / checkpoint_folder.HF, architecture)
    inputs = [folder / ".metadata", *checkpoint_folder.weight_files(folder)]
    iteration = int(folder.name.removeprefix("iter_"))
    options = {"family": architecture.family, "iteration": iteration, "dtype": job.dtype}
    if finished(output, output, STAGE, inputs, options):
        return
    stored = TorchDist(folder)
    check_tensors(stored, FAMILIES[architecture.family], architecture)
    source = StoredModel(stored, FAMILIES[architecture.family], architecture)
    temporary = output.with_name(f".{output.name}.partial")
    begin(temporary / nemo_config.WEIGHTS, inputs, options)
    shutil.rmtree(temporary / nemo_config.CONTEXT, ignore_errors=True)
    dtype = DTYPES.get(job.dtype or "")
    hashes = _write_weights(temporary / nemo_config.WEIGHTS, source, architecture, dtype, inputs, workers)
    embedding = FAMILIES[architecture.family].shared[0].hf[0]
    nemo_context.write(temporary / nemo_config.CONTEXT, architecture, dtype or source.dtype(embedding), tokenizer)
    files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
    record(temporary, STAGE, inputs, hashes, options, files, architecture)
    temporary.replace(output)
    print(f"{output}: {architecture.family}, {architecture.parameters:,} parameters, from {folder}")


def _tokenizer(companions: Path, architecture: Architecture) -> Path | None:
    """Return the folder of the tokenizer, after a check that the model has its ids; None where there is no tokenizer."""
    if tokenizer_ids(companions) is None:
        return None
    check_vocabulary(companions, architecture.vocab_size)
    return companions


def _write_weights(
    folder: Path, source: StoredModel, architecture: Architecture, dtype: torch.dtype | None, paths: list[Path], workers: int
) -> dict[Path, str]:
    """Write `weights/` and return the SHA-256 of the inputs and of the files written."""
    parts = enumerate(units(FAMILIES[architecture.family], architecture))
    steps = [WriteNemoPart(f"__{number}_0.distcp", source, tuple(part), architecture, dtype, 1) for number, part in parts]
    total = sum(unit.nbytes(architecture, dtype or source.dtype(unit.hf[0])) for step in steps for unit in step.units)
    with InputHashes(paths) as inputs:
        results, hashes = run_steps("export", folder, steps, workers, inputs, total)
    entries = [torch_dist.Entry.from_json(entry) for part in results for entry in part]
    torch_dist.finish(folder, entries, _COMMON, [nemo_config.PREFIX + name for name in extra_states(architecture)])
    return hashes
