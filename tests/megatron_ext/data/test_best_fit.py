"""Best-fit packing: each token once, no document cut that fits, no row that has too many."""

import itertools
import time

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from galen.errors import UsageError
from megatron_ext.data.best_fit import pack
from tests.megatron_ext.data.test_padded_documents import LENGTH, documents, parts

BFD = ("data.reset_attention_mask=true", "data.packing_strategy=bfd")


def one_by_one(sizes, length):
    """Return the free tokens of each row after best-fit decreasing, one piece at a time."""
    rows = []
    for size in sorted(sizes, reverse=True):
        fitting = [index for index, room in enumerate(rows) if room >= size]
        if not fitting:
            rows.append(length)
            fitting = [len(rows) - 1]
        rows[min(fitting, key=rows.__getitem__)] -= size
    return rows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.sampled_from([1, 4]))
def test_rows_are_those_of_best_fit_decreasing(lengths, multiple):
    rows = pack(numpy.array(lengths, numpy.int32), LENGTH, multiple, seed=3)
    pieces = rows.pieces.tolist()
    tokens = sorted(
        (document, token)
        for document, offset, size in pieces
        for token in range(offset, min(offset + size, lengths[document]))
    )
    assert tokens == [(n, token) for n, length in enumerate(lengths) for token in range(length)]
    for document, offset, size in pieces:
        assert size % multiple == 0 and offset % LENGTH == 0
        assert size == LENGTH or offset + size >= lengths[document]
    sums = [
        sum(size for _, _, size in pieces[first:last])
        for first, last in itertools.pairwise(rows.bounds.tolist())
    ]
    expected = one_by_one([size for _, _, size in pieces], LENGTH)
    assert sorted(LENGTH - total for total in sums) == sorted(expected)


def test_a_million_documents_take_seconds():
    lengths = numpy.random.default_rng(0).lognormal(7, 1.5, 1_000_000).astype(numpy.int32)
    start = time.monotonic()
    rows = pack(lengths, 65536, 16, seed=1)
    assert time.monotonic() - start < 30
    assert rows.pieces[:, 2].sum() / (65536 * (len(rows.bounds) - 1)) > 0.999


@pytest.mark.parametrize("multiple", [None, 4])
def test_sequences_hold_documents_that_fit_uncut(built, multiple):
    lengths = [5, 20, 12, 31, 32, 33, 70, 1, 9, 17, 3]
    corpus = documents(lengths)
    data = built(corpus, *BFD, f"data.pad_documents_to_multiple_of={multiple or 'null'}")
    samples = [data.train[n] for n in range(data.train.per_pass)]
    assert len(samples) == -(-sum(lengths) // LENGTH)
    found = [part for sample in samples for part in parts(sample, multiple or 1)]
    assert sorted(itertools.chain(*found)) == list(range(1, sum(lengths) + 1))
    for document in corpus:
        if len(document) <= LENGTH:
            assert document in found
    predicted = []
    for sample in samples:
        in_loss = sample["loss_mask"] > 0
        assert torch.equal(sample["labels"][in_loss], sample["tokens"][in_loss] + 1)
        predicted += sample["labels"][in_loss].tolist()
        assert torch.equal(sample["padding"], sample["tokens"] == 0)
    firsts = {document[0] for document in corpus}
    assert sorted(predicted) == [n for n in range(1, sum(lengths) + 1) if n not in firsts]
    again = built(corpus, *BFD, f"data.pad_documents_to_multiple_of={multiple or 'null'}")
    assert all(torch.equal(again.train[n]["tokens"], s["tokens"]) for n, s in enumerate(samples))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.packing_strategy=bfd"], "needs data.reset_attention_mask: true"),
        ([*BFD, "data.instruction=true"], "with data.instruction"),
    ],
)
def test_options_that_do_not_fit_are_refused(built, overrides, message):
    with pytest.raises(UsageError, match=message):
        built([[1, 2, 3]], *overrides)
