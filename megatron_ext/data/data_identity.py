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
_BLOCKS, _BLOCK_BYTES = 64, 65536
"""What is read of the tokens: all of a small file, of a file of terabytes blocks spread over it."""


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
    first = torch.distributed.get_rank() == 0
    reads = first or os.environ.get("LOCAL_RANK", "0") == "0"  # one process of each machine
    own = [fingerprint(prefix) for prefix in prefixes] if reads else None
    record = output / RECORD
    before = _recorded(record) if first and resumed and record.is_file() else None
    everywhere: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everywhere, (own, before))
    now, before = everywhere[0]
    for rank, (other, _) in enumerate(everywhere):
        if other is not None and other != now:
            changed = [
                prefix
                for prefix, here, there in zip(prefixes, now, other, strict=True)
                if here != there
            ]
            raise_on_all_ranks(
                DataError(
                    f"process {rank} reads other data than process 0 below the same names:"
                    f" {', '.join(changed)}"
                )
            )
    if before not in (None, now):
        raise_on_all_ranks(_other_data(output, prefixes, before, now))
    if first and before is None:
        write_text(record, json.dumps({"fingerprints": now}) + "\n")
    return dict(zip(prefixes, now, strict=True))


def _recorded(path: Path) -> list[str]:
    found = json_file.read_object(path).get("fingerprints")
    if not isinstance(found, list):
        raise DataError(
            f"{path} is damaged: it holds no list of fingerprints; remove it if the data are those"
            " that the run began with"
        )
    return found


def _other_data(output: Path, prefixes: list[str], before: list[str], now: list[str]) -> DataError:
    """Return what to say of files that changed since a run began."""
    changed = prefixes
    if len(before) == len(now):
        changed = [
            prefix for prefix, old, new in zip(prefixes, before, now, strict=True) if old != new
        ]
    return DataError(
        f"{', '.join(changed)}: the files are not those that the run in {output} began with"
        " (tokenized again?); bring those back, or start from its weights on the new ones with"
        f" model.checkpoint={output / 'checkpoints'} and another output"
    )
