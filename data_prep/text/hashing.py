"""Hashes that stay the same between runs, machines and Python versions."""

import hashlib


def stable_hash(*parts: str | int) -> int:
    """Return an unsigned 64-bit hash of the parts (BLAKE2b); their order counts."""
    joined = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def unit_hash(*parts: str | int) -> float:
    """Return a stable hash of the parts, spread evenly over [0, 1)."""
    return (stable_hash(*parts) >> 11) * 2.0**-53
