"""Checks that the parts of a tensor in a checkpoint's metadata tile it.

Each number is in exactly one of them.
"""

import hashlib
import math
import secrets
from functools import lru_cache

from torch.distributed.checkpoint.metadata import TensorStorageMetadata

_PRIME = 2**61 - 1
_KEY = secrets.token_bytes(16)


@lru_cache(2**16)
def _weight(axis: int, position: int) -> int:
    """Return a random number for a position on an axis, fixed in this process; 0 for its start."""
    if not position:
        return 0
    return (
        int.from_bytes(
            hashlib.blake2b(b"%d %d" % (axis, position), digest_size=16, key=_KEY).digest()
        )
        % _PRIME
    )


def is_tiled(tensor: TensorStorageMetadata) -> bool:
    """Return whether parts that lie inside a tensor cover it without an overlap.

    Their volumes are added up with random lengths of the steps along each axis: for parts that
    leave a gap or overlap, the sum is that of the tensor by a chance of one in 10**17 only. The
    time is proportional to the number of parts, whatever their pattern.
    """
    size = tuple(tensor.size)
    total = 0
    for chunk in tensor.chunks:
        volume = 1
        for axis, (start, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
            volume = volume * (_weight(axis, start + length) - _weight(axis, start)) % _PRIME
        total += volume
    expected = math.prod(_weight(axis, length) for axis, length in enumerate(size))
    return 0 in size or (total - expected) % _PRIME == 0


def overlaps(tensor: TensorStorageMetadata) -> bool:
    """Return whether parts surely overlap.

    Two begin at one offset, or their volume exceeds the tensor's, or equals it and leaves gaps.
    """
    volumes = [math.prod(chunk.sizes) for chunk in tensor.chunks]
    begins = {
        tuple(chunk.offsets) for chunk, volume in zip(tensor.chunks, volumes, strict=True) if volume
    }
    total = sum(volumes)
    tensor_volume = math.prod(tensor.size)
    return (
        len(begins) < sum(map(bool, volumes))
        or total > tensor_volume
        or (total == tensor_volume and not is_tiled(tensor))
    )
