"""Registers an iteration that another program wrote: adds the files that Galen needs beside it."""

from pathlib import Path
from typing import Any

from checkpoints_convert.conversion.text_part import copy_text_companions
from checkpoints_convert.conversion.validate import check_tensors, differences, missing
from checkpoints_convert.families.base import Family
from checkpoints_convert.hf.folder import seal_companions
from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import ARCHITECTURE_FILE, Architecture, read_architecture

STAGE = "register_checkpoint"


def register(folder: Path, hf: Path, family: Family, architecture: Architecture) -> None:
    """Register the iteration in `folder` as the model that the Hugging Face folder `hf` describes.

    Raises:
        DataError: its tensors are another model's, or it is one of ours that says so.
    """
    source = TorchDist(folder)
    check_tensors(source, family, architecture)
    if reason := missing(source):  # the manifest would call it complete
        raise DataError(f"{folder} is incomplete: {reason}; copy it again")
    if _is_ours(folder):
        existing = read_architecture(folder)
        if existing != architecture:
            raise DataError(
                f"{folder} is one of Galen's and another model than {hf}:"
                f" {differences(existing, architecture)}"
            )
        _copy_companions(hf, folder.parent / checkpoint_folder.HF)
        return
    records = [
        manifest.describe_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and not _is_new(path.name)
    ]
    _copy_companions(hf, folder.parent / checkpoint_folder.HF)
    architecture.write(folder)
    inputs = [hf / "config.json"]
    counts = {"parameters": architecture.parameters}
    outputs: list[Path | dict[str, Any]] = [*records, folder / ARCHITECTURE_FILE]
    manifest.write(
        folder / manifest.NAME,
        stage=STAGE,
        inputs=inputs,
        config={"family": family.name},
        outputs=outputs,
        counts=counts,
    )


def _copy_companions(hf: Path, target: Path) -> None:
    """Copy them, with a manifest of their own.

    A command killed in between leaves no companions that do not match.
    """
    (target / manifest.NAME).unlink(missing_ok=True)
    copy_text_companions(hf, target)
    seal_companions(target)


def _is_new(name: str) -> bool:
    """Return whether registration writes this file; a killed command may leave a partial one."""
    return name in (manifest.NAME, ARCHITECTURE_FILE) or (
        name.startswith(".") and name.endswith(".partial")
    )


def _is_ours(folder: Path) -> bool:
    """Return whether a command of ours wrote the iteration; registration may be repeated."""
    if not (folder / manifest.NAME).is_file() or not (folder / ARCHITECTURE_FILE).is_file():
        return False
    return bool(manifest.read(folder)["stage"] != STAGE)
