"""The `manifest.json` that each stage writes beside its output: what it read, how, what it wrote, and counts."""

import functools
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from galen import __version__
from galen.atomic import write_text
from galen.errors import DataError, one_line

NAME = "manifest.json"
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
    """Return the record of one file: path as given, size in bytes, SHA-256 (computed where it is not known yet)."""
    return {"path": str(path), "bytes": Path(path).stat().st_size, "sha256": known_sha256 or sha256(path)}


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
    """Write a manifest at `path` and return it. Outputs below the manifest's own folder are recorded relative to it.

    A file that was hashed while it was read or written may come as its record (see `describe_file`).
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


def read(path: str | Path, stage: str | None = None) -> dict[str, Any]:
    """Read the manifest `path`, or the one in the folder `path`.

    Raises:
        DataError: it is missing or damaged, or was written by another stage than `stage`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the manifest {path}: {error.strerror}; was the stage that writes it finished?") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a manifest: {one_line(error)}") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{path} is not a manifest: it holds no JSON object")
    if stage is not None and manifest.get("stage") != stage:
        raise DataError(f"{path} was written by the stage {manifest.get('stage')!r}, this needs the output of {stage!r}")
    return manifest


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, Galen and the installed libraries that decide results."""
    found = {"python": platform.python_version(), "galen": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
