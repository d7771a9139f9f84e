"""The `manifest.json` that each stage writes beside its output.

It records what the stage read, how, what it wrote, and counts.
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from galen import __version__, commands, json_file
from galen.atomic import write_text
from galen.errors import DataError

NAME = "manifest.json"
_SHAPE = {"stage": str, "inputs": list, "config": dict, "outputs": list, "counts": dict}
_OUTPUT: dict[str, tuple[type, ...]] = {"path": (str,), "bytes": (int,), "sha256": (str,)}
_INPUT: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "bytes": (int, NoneType),
    "sha256": (str, NoneType),
}
"""Types of what a record holds; an input may be a stream, of which less is known."""
_PACKAGES = (
    "torch",
    "megatron-core",
    "transformer-engine",
    "transformers",
    "vllm",
    "peft",
    "accelerate",
    "bitsandbytes",
    "mergekit",
    "llmcompressor",
    "compressed-tensors",
    "datatrove",
    "py3langid",
    "snowballstemmer",
    "ahocorasick_rs",
    "tokenizers",
    "sentencepiece",
    "gigatoken",
)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: str | Path, known_sha256: str | None = None) -> dict[str, Any]:
    """Return the record of one file.

    It holds the path as given, the size in bytes and the SHA-256 (computed if not known yet).
    """
    return {
        "path": str(path),
        "bytes": Path(path).stat().st_size,
        "sha256": known_sha256 or sha256(path),
    }


def write(
    path: str | Path,
    *,
    stage: str,
    inputs: Iterable[str | Path | Mapping[str, Any]],
    config: Mapping[str, Any],
    outputs: Iterable[str | Path | Mapping[str, Any]],
    counts: Mapping[str, Any],
    **extra: Any,
) -> dict[str, Any]:
    """Write a manifest at `path` and return it.

    Outputs below the manifest's own folder are recorded relative to it.

    A file that was hashed while it was read or written may come as its record (see
    `describe_file`).
    """
    path = Path(path)
    written = []
    for output in outputs:
        record = _record(output)
        if Path(record["path"]).is_relative_to(path.parent):
            record["path"] = str(Path(record["path"]).relative_to(path.parent))
        written.append(record)
    manifest = {
        "stage": stage,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "inputs": [_record(name) for name in inputs],
        "config": dict(config),
        "outputs": written,
        "counts": dict(counts),
        "versions": versions(),
        **extra,
    }
    write_text(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _record(file: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    return dict(file) if isinstance(file, Mapping) else describe_file(file)


def _command(stage: str | None) -> str:
    """Return the command of a stage, for messages."""
    verb = (stage or "").replace("_", "-")
    return f"`galen {verb}`" if verb in commands.VERBS else "the stage"


def read(path: str | Path, stage: str | None = None) -> dict[str, Any]:
    """Read the manifest `path`, or the one in the folder `path`.

    Raises:
        DataError: it is missing or damaged, or was written by another stage than `stage`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / NAME
    elif not path.exists() and path.suffix != ".json":
        raise DataError(
            f"there is no folder {path}; give the one that {_command(stage)} wrote, or let it"
            " finish"
        )
    if not path.exists():
        raise DataError(
            f"cannot read the manifest {path}: there is none; did {_command(stage)} that writes it"
            " finish?"
        )
    try:
        manifest = json_file.read_object(path)
    except DataError as error:
        raise DataError(f"{path} is not a manifest: {error}") from None
    if wrong := _misshapen(manifest):
        raise DataError(f"{path} is not a manifest: {wrong}")
    if stage is not None and manifest.get("stage") != stage:
        raise DataError(
            f"{path} was written by the stage {manifest['stage']!r}, this needs the output of"
            f" {stage!r}"
        )
    return manifest


def _misshapen(manifest: Mapping[str, Any]) -> str | None:
    """Return what of a manifest is not as `write` writes it, or None."""
    for key, expected_type in _SHAPE.items():
        if not isinstance(manifest.get(key), expected_type):
            return f"{key} is missing, or of the wrong type"
    for key, fields in (("inputs", _INPUT), ("outputs", _OUTPUT)):
        for number, record in enumerate(manifest[key]):
            if not isinstance(record, dict):
                return f"{key}, entry {number}: not an object"
            for field, kinds in fields.items():
                if not isinstance(record.get(field), kinds):
                    return f"{key}, entry {number}: {field} is missing, or of the wrong type"
    return None


def recorded(folder: str | Path) -> dict[Path, dict[str, Any]]:
    """Return the records of the files in `folder` by their paths.

    They come from the manifest there, else from that of the parent folder.

    A `manifest.json` without a stage is another program's; without a manifest there are no records.

    Raises:
        DataError: the manifest is damaged.
    """
    folder = Path(folder)
    home = folder.absolute()
    for parent in (home, home.parent):
        records = {}
        for record in _outputs(parent / NAME, required=parent == home):
            path = parent / record["path"]
            if path.is_relative_to(home) and ".." not in path.parts:
                records[folder / path.relative_to(home)] = record
        if records:
            return records
    return {}


def _outputs(path: Path, required: bool) -> list[dict[str, Any]]:
    """Return the content of one of our manifests.

    A damaged one counts as another program's unless `required`.
    """
    if not path.is_file():
        return []
    try:
        return read(path)["outputs"] if "stage" in json_file.read_object(path) else []
    except DataError:
        if required:
            raise
        return []


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, Galen and the installed libraries that decide results."""
    versions = {"python": platform.python_version(), "galen": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
