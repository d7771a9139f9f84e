import numpy
import pytest

from benchmarks.document_padding import padding_fraction


def test_each_document_is_padded_to_two_chunks_for_each_process():
    lengths = numpy.array([1, 4, 5], numpy.int32)
    assert padding_fraction(lengths, 2) == pytest.approx(1 - 10 / 16)
    assert padding_fraction(lengths, 4) == pytest.approx(1 - 10 / 24)
