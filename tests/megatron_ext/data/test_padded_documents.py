"""Padded documents: each token once in a pass, no label across a boundary, aligned starts."""

import itertools

import numpy
import pytest
import torch

from megatron_ext.data import batches
from megatron_ext.model.attention import context_parallel_positions

LENGTH = 32


def documents(lengths):
    """Return documents of so many consecutive ids, all different."""
    bounds = numpy.cumsum([1, *lengths])
    return [list(range(start, end)) for start, end in itertools.pairwise(bounds)]


def parts(sample, multiple):
    """Return the parts of documents in a sample, without their padding."""
    starts = [*(sample["position_ids"] == 0).nonzero().flatten().tolist(), LENGTH]
    assert all(start % multiple == 0 for start in starts)
    found = []
    for start, end in itertools.pairwise(starts):
        ids = sample["tokens"][start:end]
        assert sample["position_ids"][start:end].tolist() == list(range(end - start))
        found.append(ids[ids > 0].tolist())
        assert ids[len(found[-1]) :].sum() == 0  # padding at the end alone
    return [part for part in found if part]


@pytest.mark.parametrize("multiple", [2, 4, 16])
@pytest.mark.parametrize(
    "lengths",
    [[1], [31], [32], [33, 64, 16], [*range(1, 40)], [100, 3, 1, 1, 7, 200, 32, 32, 32]],
    ids=str,
)
def test_each_token_is_read_once(built, lengths, multiple):
    corpus = documents(lengths)
    data = built(
        corpus,
        "data.reset_attention_mask=true",
        f"data.pad_documents_to_multiple_of={multiple}",
    )
    samples = [data.train[n] for n in range(data.train.per_pass)]
    padded = sum(-(-length // multiple) * multiple for length in lengths)
    assert len(samples) == -(-padded // LENGTH)
    found = [part for sample in samples for part in parts(sample, multiple)]
    assert sorted(itertools.chain(*found)) == list(range(1, sum(lengths) + 1))
    firsts = {document[0] for document in corpus}
    for part in found:
        assert len(set(part) & firsts) == (part[0] in firsts)  # of one document
    predicted = []
    for sample in samples:
        in_loss = sample["loss_mask"] > 0
        assert torch.equal(sample["labels"][in_loss], sample["tokens"][in_loss] + 1)
        predicted += sample["labels"][in_loss].tolist()
        assert torch.equal(sample["padding"], sample["tokens"] == 0)
    assert sorted(predicted) == sorted(set(itertools.chain(*corpus)) - firsts)


def test_positions_divide_each_document_in_two_mirrored_chunks():
    # the example in Transformer Engine's documentation: documents of 8 and 4 tokens
    bounds = torch.tensor([0, 8, 12])
    assert context_parallel_positions(bounds, 0, 2).tolist() == [0, 1, 6, 7, 8, 11]
    assert context_parallel_positions(bounds, 1, 2).tolist() == [2, 3, 4, 5, 9, 10]
    everything = [context_parallel_positions(torch.tensor([0, 64, 80]), n, 8) for n in range(8)]
    assert sorted(torch.cat(everything).tolist()) == list(range(80))


def test_packed_documents_carry_the_boundaries_that_each_process_divides(monkeypatch):
    batch = {
        "tokens": torch.arange(16).view(2, 8),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [*range(8)]]),
    }
    monkeypatch.setattr(batches.parallel_state, "get_context_parallel_world_size", lambda: 1)
    row, packed, _ = batches.pack_documents(batch, torch.device("cpu"))
    assert row["tokens"].tolist() == [list(range(16))] and packed.cu_seqlens_q_padded is None
    monkeypatch.setattr(batches.parallel_state, "get_context_parallel_world_size", lambda: 2)
    monkeypatch.setattr(batches.parallel_state, "get_context_parallel_rank", lambda: 1)
    row, packed, bounds = batches.pack_documents(batch, torch.device("cpu"))
    row = batches.context_parallel_slice(row, bounds)
    assert row["tokens"].tolist() == [[1, 2, 5, 6, 10, 11, 12, 13]]
    assert packed.cu_seqlens_q.tolist() == [0, 4, 8, 16] and packed.max_seqlen_q == 8
    # the same object: Transformer Engine then has no padding to hide
    assert packed.cu_seqlens_q_padded is packed.cu_seqlens_q
    assert packed.cu_seqlens_kv_padded is packed.cu_seqlens_kv
