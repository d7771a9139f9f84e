"""Checks of a run before its processes start; no torch here, so that mistakes show within a second.

Whatever configuration and file headers alone decide is checked here: the layout, the run folder,
the data and the memory of a machine without GPUs.
"""

import dataclasses
import logging
import os
from pathlib import Path

from galen import checksums, manifest, recipe, run_folder
from galen.run_identity import Identity
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config import core_version, option_files
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.checks import chunks_per_document
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe, from_run
from megatron_ext.config.run_architecture import architecture_from_model
from megatron_ext.data import token_files
from megatron_ext.data.token_files import Vocabulary
from megatron_ext.hardware import host_memory
from megatron_ext.observability import wandb_logger

RECIPE = "recipe.yaml"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of a run, as far as they are read before it starts."""

    architecture: Architecture
    vocabulary: Vocabulary


def check(
    run: Recipe, world_size: int, local_world_size: int, launching: bool = False
) -> Inputs | None:
    """Check a run; None if it is already finished.

    Args:
        run: its recipe.
        world_size: number of its processes.
        local_world_size: number of those on this machine.
        launching: this is the launcher; leave the reading of large indexes to the processes.

    Raises:
        UsageError: the layout is impossible, or the machine has too little memory.
        DataError: checkpoint, data and tokenizer do not match.
        OutputConflictError: the run folder holds another run, or is a file.
    """
    output = Path(run.output)
    if output.exists() and not output.is_dir():
        raise run_folder.unknown_output(output)
    wandb_logger.check(run.wandb)
    checkpoint_folder.newest(run.model.checkpoint)
    _verify_companions(run, launching)
    architecture = architecture_from_model(run.model)
    check_layout(run, architecture, world_size)
    option_files.check(run)
    core_version.check(run)
    _check_same_run(output, run)
    if (output / manifest.NAME).is_file():
        logger.info(f"{output} is already complete")
        return None
    read_index = not launching and os.environ.get("LOCAL_RANK", "0") == "0"
    vocabulary = token_files.check_run(run, architecture, read_index)
    if not host_memory.may_have_gpu():
        host_memory.check(architecture, run, world_size, local_world_size)
    return Inputs(architecture, vocabulary)


def _verify_companions(run: Recipe, launching: bool) -> None:
    """Compare tokenizer and configuration of the initial checkpoint with its manifest."""
    folder = Path(run.model.checkpoint) / checkpoint_folder.HF
    if run.model.verify_checksums:
        checksums.verify(folder)
    elif manifest.recorded(folder) and not launching and os.environ.get("RANK", "0") == "0":
        checksums.log_skipped(folder)


def _check_same_run(output: Path, run: Recipe) -> None:
    """Refuse to mix two runs in one folder."""
    path = output / RECIPE
    if not path.is_file():
        return
    identity = Identity(recipe.to_dict(run), may_change=recipe.resume_may_change(Recipe))
    earlier = from_run(path)
    differences = identity.differences(Identity(recipe.to_dict(earlier)))
    if run.document_multiple != earlier.document_multiple:
        differences.append(_other_padding(earlier.document_multiple, run))
    if not differences:
        return
    paths = ("data.train", "data.validation", "model.checkpoint")
    advice = run_folder.ADVICE
    if all(difference.startswith(paths) for difference in differences):
        advice = f"if the files have only moved, write their new paths into {path}; else {advice}"
    raise run_folder.conflict(
        output,
        differences,
        f"{advice}; to train its weights further in another way, set"
        f" model.checkpoint={output / 'checkpoints'} and another output",
    )


def _other_padding(earlier: int, run: Recipe) -> str:
    """Return the difference of a run from its start, when documents were padded to `earlier`."""
    key = "data.pad_documents_to_multiple_of"
    difference = f"{key}: {earlier} → {run.document_multiple} (1 is no padding)"
    if earlier % chunks_per_document(run.parallel):
        return (
            f"{difference}, which parallel.context_parallel_size ="
            f" {run.parallel.context_parallel_size} needs: set that to"
            f" {earlier // 2 or 1} or a divisor of it to keep the run's sequences"
        )
    fix = f"set {key} to {earlier}" if earlier > 1 else f"set {key} to null"
    return f"{difference}; {fix} to keep the run's sequences"
