import pytest
import torch

from checkpoints_convert.hf import mxfp4
from galen.errors import DataError


def random_bytes(*size: int, high: int = 256) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, high, size, generator=generator, dtype=torch.uint8)


def test_numbers_equal_those_of_transformers_bit_for_bit():
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = random_bytes(2, 300, 3, 16)
    scales = random_bytes(2, 300, 3, high=255)  # every scale but NaN
    expected = convert_moe_packed_tensors(blocks, scales)
    actual = torch.stack([mxfp4.decode(*expert) for expert in zip(blocks, scales, strict=True)])
    assert actual.mT.contiguous().view(torch.int16).equal(expected.view(torch.int16))


def test_numbers_are_those_of_the_specification():
    """Sign, two bits of exponent with bias 1, one bit of mantissa; scales are 2^(byte - 127)."""
    for code in range(16):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        magnitude = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2 ** (exponent - 1)
        for scale in (0, 100, 127, 200):
            blocks = torch.full((1, 1, 16), code | code << 4, dtype=torch.uint8)
            actual = mxfp4.decode(blocks, torch.tensor([[scale]], dtype=torch.uint8)).double()
            assert (actual == (-1) ** sign * magnitude * 2.0 ** (scale - 127)).all()
    lower_half_first = mxfp4.decode(
        torch.full((1, 1, 16), 0x21, dtype=torch.uint8), torch.full((1, 1), 127, dtype=torch.uint8)
    )
    assert lower_half_first[0, :2].tolist() == [0.5, 1.0]


def test_a_scale_that_is_nan_is_refused():
    with pytest.raises(DataError, match="an MXFP4 scale is NaN"):
        mxfp4.decode(random_bytes(1, 2, 16), torch.tensor([[1, 255]], dtype=torch.uint8))
