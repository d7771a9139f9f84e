"""MXFP4, the format of gpt-oss' experts on the Hub: 4-bit numbers that share a scale by 32.

As in the OCP Microscaling Formats (MX) Specification v1.0: a number is an e2m1 float, a scale an
e8m0 exponent. Two numbers are in a byte, the first in its lower half.
"""

import torch
from torch import Tensor

from galen.errors import DataError

GROUP = 32
"""Numbers that share a scale."""
_BIAS = 127
_NAN = 255
"""The scale that makes its numbers NaN."""
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NUMBERS = (*_MAGNITUDES, *(-magnitude for magnitude in _MAGNITUDES))
_BYTES = torch.tensor(
    [(_NUMBERS[byte & 15], _NUMBERS[byte >> 4]) for byte in range(256)], dtype=torch.bfloat16
)
"""Both numbers of each byte."""
_ROWS = 256
"""Rows that are decoded at once; their intermediate values are larger than the result."""


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return the numbers in bf16, which holds all of them exactly, [rows, columns].

    Args:
        blocks: bytes, [rows, groups, 16].
        scales: bytes, [rows, groups].

    Raises:
        DataError: a scale is NaN.
    """
    if bool((scales == _NAN).any()):
        raise DataError("an MXFP4 scale is NaN (255)")
    rows, groups = scales.shape
    numbers = torch.empty(rows, groups, GROUP, dtype=torch.bfloat16)
    for start in range(0, rows, _ROWS):
        part = slice(start, start + _ROWS)
        pairs = _BYTES[blocks[part].int()]  # [rows, groups, 16, 2]
        exponents = scales[part].int() - _BIAS
        torch.ldexp(pairs.flatten(2), exponents[:, :, None], out=numbers[part])
    return numbers.flatten(1)
