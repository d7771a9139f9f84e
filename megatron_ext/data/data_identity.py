"""Identifies the data that a run reads.

Files tokenized again at the same path are different data with a different index in the cache.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from galen import json_file, manifest
from galen.atomic import write_text
from galen.errors import DataError, raise_on_all_ranks

RECORD = "data.json"
_BLOCKS = 64
_BLOCK_BYTES = 65536
"""Number and size of the hashed blocks of tokens: all of a small file, a sample of a large one."""


def fingerprint(prefix: str) -> str:
    """Return a hash of a pair of files.

    It covers the entire index, the number of bytes of tokens, and blocks of them.
    """
    binary = Path(f"{prefix}.bin")
    size = binary.stat().st_size
    digest = hashlib.sha256(f"{manifest.sha256(Path(f'{prefix}.idx'))} {size}".encode())
    with binary.open("rb") as file:
        for block in range(_BLOCKS):
            file.seek(max(size - _BLOCK_BYTES, 0) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def check(output: Path, prefixes: list[str], resumed: bool) -> dict[str, str]:
    """Return the fingerprint of each pair of files, the same as when the run began (collective).

    A new run records them.

    Args:
        output: run folder.
        prefixes: paths of the .bin/.idx pairs without the ending, in the recipe's order.
        resumed: whether the run resumes from a checkpoint.

    Raises:
        DataError: files changed since the run began, or a machine has other files than the first.
    """
    is_first_rank = torch.distributed.get_rank() == 0
    # one process of each machine reads
    reads = is_first_rank or os.environ.get("LOCAL_RANK", "0") == "0"
    own = [fingerprint(prefix) for prefix in prefixes] if reads else None
    record = output / RECORD
    recorded = _recorded(record) if is_first_rank and resumed and record.is_file() else None
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, (own, recorded))
    current, recorded = gathered[0]
    for rank, (other, _) in enumerate(gathered):
        if other is not None and other != current:
            names = ", ".join(_changed(prefixes, current, other))
            raise_on_all_ranks(
                DataError(
                    f"process {rank} reads other data than process 0 at the same paths: {names}"
                )
            )
    if recorded is not None and recorded != current:
        raise_on_all_ranks(_other_data(output, _changed(prefixes, recorded, current)))
    if is_first_rank and recorded is None:
        write_text(record, json.dumps({"fingerprints": current}) + "\n")
    return dict(zip(prefixes, current, strict=True))


def _recorded(path: Path) -> list[str]:
    fingerprints = json_file.read_object(path).get("fingerprints")
    if not isinstance(fingerprints, list):
        raise DataError(
            f"{path} is damaged: it holds no list of fingerprints; remove it if the data are those"
            " that the run began with"
        )
    return fingerprints


def _changed(prefixes: list[str], before: list[str], now: list[str]) -> list[str]:
    """Return the prefixes whose fingerprints differ; all if their number does."""
    if len(before) != len(now):
        return prefixes
    return [prefix for prefix, old, new in zip(prefixes, before, now, strict=True) if old != new]


def _other_data(output: Path, changed: list[str]) -> DataError:
    """Return the error about files that changed since a run began."""
    return DataError(
        f"{', '.join(changed)}: the files are not those that the run in {output} began with"
        " (tokenized again?); restore those, or start from its weights on the new ones with"
        f" model.checkpoint={output / 'checkpoints'} and another output"
    )
