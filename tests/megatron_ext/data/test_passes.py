"""Each document is read once in a validation, and once in each pass of the training.

No two passes share a sequence.
"""

import itertools

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM

from megatron_ext.data.passes import ReadOnce
from tests.megatron_ext.conftest import log, write

EOD = 0
LAYOUTS = {
    "one process": (1, []),
    "DP2, one of them with padding alone": (2, []),
    "TP2 with sequence parallelism": (
        2,
        ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"],
    ),
    "interleaved PP2": (
        2,
        [
            "parallel.pipeline_model_parallel_size=2",
            "parallel.virtual_pipeline_model_parallel_size=2",
        ],
    ),
    "CP2": (2, ["parallel.context_parallel_size=2"]),
}
ONE_STEP = [
    "training.train_iters=1",
    "optimizer.lr_warmup_iters=0",
    "training.eval_iters=2",
    "data.seq_length=64",
]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three documents of 37 tokens in all."""
    random = numpy.random.default_rng(5)
    documents = [random.integers(1, 300, length).tolist() for length in (9, 12, 16)]
    return write(tmp_path_factory.mktemp("three") / "few_text_document", documents), documents


@pytest.fixture(scope="module")
def expected(untied_llama, three):
    """Hugging Face's loss of the three in one context, in each order that they can stand in."""
    model = AutoModelForCausalLM.from_pretrained(untied_llama)
    with torch.no_grad():
        streams = [
            torch.tensor([list(itertools.chain(*order))])
            for order in itertools.permutations(three[1])
        ]
        return [model(stream, labels=stream).loss.item() for stream in streams]


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_small_validation_set_is_read_once(pretrain_forked, three, expected, name):
    processes, layout = LAYOUTS[name]
    output = pretrain_forked(processes, f"data.validation=[{three[0]}]", *ONE_STEP, *layout)
    first = log(output, "validation")[0]
    assert first["tokens"] == 36
    assert min(abs(first["loss"] - loss) for loss in expected) < 1e-6 * first["loss"]


@pytest.mark.multiprocess
def test_documents_do_not_attend_to_each_other(pretrain_forked, untied_llama, three):
    model = AutoModelForCausalLM.from_pretrained(untied_llama)
    with torch.no_grad():
        source_losses = [
            model(torch.tensor([document]), labels=torch.tensor([document])).loss.item()
            for document in three[1]
        ]
    mean = (
        sum(
            loss * (len(document) - 1)
            for loss, document in zip(source_losses, three[1], strict=True)
        )
        / 34
    )
    sources = [
        f"s{n}: {{train: [{three[0]}], validation: [{three[0].parent}/one{n}], weight: 1}}"
        for n in range(3)
    ]
    for n, document in enumerate(three[1]):
        write(three[0].parent / f"one{n}", [document])
    blend = ["data.train=[]", "data.validation=[]", "data.sources={" + ", ".join(sources) + "}"]
    output = pretrain_forked(1, *blend, *ONE_STEP)
    first = log(output, "validation")[0]
    assert [first["sources"][f"s{n}"] for n in range(3)] == pytest.approx(source_losses, rel=1e-6)
    assert (
        first["loss"] == pytest.approx(sum(source_losses) / 3, rel=1e-6) and first["tokens"] == 34
    )
    assert mean == pytest.approx(sum(source_losses) / 3, rel=0.1)


def read(sample):
    """Return the tokens of a sample that are read: the first, and those that are predicted."""
    return sample["tokens"][:1].tolist() + sample["labels"][sample["loss_mask"] > 0].tolist()


@pytest.mark.parametrize("lengths", [[5, 9, 7], [31] * 7, [70, 3, 50, 2]])
def test_no_sequence_holds_a_repetition(built, lengths):
    starts = numpy.cumsum([0, *lengths])
    data = built([list(range(start, end)) for start, end in itertools.pairwise(starts)])
    size = len(data.train.once)
    for first in range(0, len(data.train) - size + 1, size):
        samples = [read(data.train[n]) for n in range(first, first + size)]
        assert all(len(set(sample)) == len(sample) for sample in samples)
        predicted = sorted(token for sample in samples for token in sample[1:])
        # all but the first of the pass
        assert len(predicted) == starts[-1] - 1 == len(set(predicted))


def test_padding_does_not_mask_other_sequences(built):
    data = built([[1] * 70])
    tokens = [len(read(data.train.once[index])) for index in (*range(3), *range(3))]
    again = built([[1] * 70]).train.once
    padded = min(range(3), key=lambda index: tokens[index])
    assert sorted(tokens[:3]) == [6, 33, 33]
    assert [len(read(again[index])) for index in (padded, *range(3))] == [6, *tokens[:3]]


def test_later_passes_have_another_order(built):
    data = built([[n] * 33 for n in range(20)], "training.train_iters=40")
    size = len(data.train.once)
    orders = [
        [tuple(data.train[n + first]["labels"].tolist()) for n in range(size)]
        for first in (0, size, 2 * size)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert data.train[size]["labels"].tolist() == list(orders[1][0])


def test_epochs_are_counted(built):
    epochs = built([[1] * 100]).epochs
    assert epochs[0].exceeds_limit and epochs[0].message.startswith(
        "training data: reads 32 sequences of 32 tokens, 4 per epoch (8.00 epochs), more than"
        " data.warn"
    )
    assert epochs[1].message == "validation: 4 of 4 sequences, each read once"
    below = built([[1] * 100], "data.warn_above_epochs=8").epochs[0]
    assert not below.exceeds_limit and below.message.endswith("(8.00 epochs)")


def test_padding_does_not_count_as_an_epoch(built):
    smallest = [
        "training.train_iters=1",
        "optimizer.lr_warmup_iters=0",
        "training.global_batch_size=1",
        "training.micro_batch_size=1",
    ]
    said = built([[1] * 20], *smallest).epochs[0].message
    assert said == "training data: reads 1 of 1 sequences of 32 tokens (1.00 epochs)"


def test_samples_of_several_files_end_with_padding():
    files = [
        [{"tokens": torch.tensor([n]), "loss_mask": torch.ones(1)} for n in range(low, high)]
        for low, high in ((0, 3), (3, 10))
    ]
    few = ReadOnce(files, 4, seed=1)
    assert len(few) == 4 and few.available == 10
    chosen = {int(few[n]["tokens"]) for n in range(4)}
    assert len(chosen) == 4 and max(chosen) > 2
    assert few[0]["loss_mask"].sum() == 1 and few[4]["loss_mask"].sum() == 0
    assert {int(ReadOnce(files, 99, seed=1)[n]["tokens"]) for n in range(10)} == set(range(10))
