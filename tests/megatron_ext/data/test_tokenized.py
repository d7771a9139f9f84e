import itertools
import json
import shutil
from pathlib import Path

import numpy
import pytest
from tokenizers import AddedToken, Tokenizer

from data_prep import preprocess
from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import read_architecture
from megatron_ext.data.batches import BatchSampler
from megatron_ext.data.token_files import check
from megatron_ext.data.tokenized import check_ids
from tests.conftest import run


@pytest.fixture(scope="module")
def shape(checkpoint):
    return read_architecture(checkpoint_folder.newest(checkpoint))


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("written")
    (folder / "in.jsonl").write_text('{"text": "one two three"}\n{"text": "four"}\n')
    words = [
        "--input",
        folder / "in.jsonl",
        "--output-prefix",
        folder / "d",
        "--tokenizer-model",
        tiny_tokenizer,
        "--append-eod",
    ]
    run("data_prep/preprocess.py", *words)
    return folder


@pytest.fixture
def tokenized(tmp_path, written):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return f"{tmp_path}/d_text_document"


def test_output_of_preprocess_is_accepted(tokenized, shape, tiny_tokenizer):
    vocabulary = check([tokenized], shape, tiny_tokenizer / "tokenizer.json")
    assert (vocabulary.vocab_size, vocabulary.eod) == (300, 0)


def test_documents_without_an_end_have_no_end_of_document_token(
    tmp_path, tokenized, shape, tiny_tokenizer
):
    """Files without end-of-document tokens have none, though their tokenizer does.

    A model asked to keep documents apart by it would see them as one.
    """
    made = manifest.read(tmp_path / "d_manifest.json")
    made["config"]["append_eod"] = False
    (tmp_path / "x_manifest.json").write_text(json.dumps(made))
    for ending in ("bin", "idx"):
        shutil.copy(f"{tokenized}.{ending}", tmp_path / f"x_text_document.{ending}")
    assert (
        check(
            [tokenized, f"{tmp_path}/x_text_document"], shape, tiny_tokenizer / "tokenizer.json"
        ).eod
        < 0
    )


def test_another_tokenizer_is_refused(tmp_path, tokenized, shape, tiny_tokenizer):
    other = tmp_path / "tokenizer.json"
    other.write_text((tiny_tokenizer / "tokenizer.json").read_text() + "\n")
    with pytest.raises(DataError, match="differs from the model's own"):
        check([tokenized], shape, other)


def test_an_altered_index_is_refused(tokenized, shape, tiny_tokenizer):
    index = Path(f"{tokenized}.idx")
    content = bytearray(index.read_bytes())
    content[-9] ^= 1
    index.write_bytes(content)
    with pytest.raises(DataError, match=r"\.idx was altered since .*_manifest\.json was written"):
        check([tokenized], shape, tiny_tokenizer / "tokenizer.json")


def test_a_larger_vocabulary_is_refused(tmp_path, tokenized, shape, tiny_tokenizer):
    path = tmp_path / "d_manifest.json"
    made = manifest.read(path)
    made["tokenizer"]["vocab_size"] = 301
    path.write_text(json.dumps(made))
    with pytest.raises(DataError, match="has 301 ids; the model has 300 embedding rows"):
        check([tokenized], shape, tiny_tokenizer / "tokenizer.json")


@pytest.mark.parametrize("text", ["one", "one <image_soft_token>"])
def test_a_placeholder_without_a_row_is_accepted_where_no_text_has_it(
    tmp_path, shape, tiny_tokenizer, text
):
    """As the tokenizers of Gemma 3 1B and MedGemma 27B text have it."""
    tokenizer = Tokenizer.from_file(str(tiny_tokenizer / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<image_soft_token>", special=True)])
    assert tokenizer.token_to_id("<image_soft_token>") == shape.vocab_size
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": text}) + "\n")
    options = {"--input": "in.jsonl", "--output-prefix": "d", "--tokenizer-model": "tokenizer.json"}
    words = [word for name, file in options.items() for word in (name, tmp_path / file)]
    preprocess.main([str(word) for word in words])
    prefix = f"{tmp_path}/d_text_document"
    if text == "one":
        assert check([prefix], shape, tmp_path / "tokenizer.json").vocab_size == 300
        return
    with pytest.raises(DataError, match="text holds an id from 300 on"):
        check([prefix], shape, tmp_path / "tokenizer.json")


@pytest.mark.parametrize("section", ["config", "tokenizer"])
def test_a_manifest_of_another_version_is_refused(
    tmp_path, tokenized, shape, tiny_tokenizer, section
):
    path = tmp_path / "d_manifest.json"
    made = manifest.read(path)
    made[section] = {"renamed": 1}
    path.write_text(json.dumps(made))
    with pytest.raises(DataError, match="lacks what this version of Galen records"):
        check([tokenized], shape, tiny_tokenizer / "tokenizer.json")


@pytest.mark.usefixtures("group_of_one")
def test_ids_are_checked_in_files_without_a_manifest(data, shape, tmp_path):
    prefix = str(data / "train_text_document")
    assert check([prefix], shape, tmp_path / "none").vocab_size == 300
    check_ids([prefix], shape)
    ids = numpy.memmap(f"{prefix}.bin", numpy.uint16, "r")
    (tmp_path / "x.idx").write_bytes((data / "train_text_document.idx").read_bytes())
    ids = numpy.array(ids)
    ids[7] = 300
    ids.tofile(tmp_path / "x.bin")
    with pytest.raises(DataError, match="holds the id 300, the model has 300 embedding rows"):
        check_ids([prefix, str(tmp_path / "x")], shape)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index, binary: index.unlink(), "is missing"),
        (lambda index, binary: index.write_bytes(b"not an index"), "not a Megatron index"),
        (lambda index, binary: index.write_bytes(index.read_bytes()[:-1]), "truncated or altered"),
        (
            lambda index, binary: index.write_bytes(index.read_bytes()[:-12] + bytes(12)),
            "do not follow each other",
        ),
        (lambda index, binary: binary.write_bytes(binary.read_bytes()[:-2]), "tokenize again"),
    ],
)
def test_damaged_files_are_named(data, shape, tmp_path, damage, message):
    index, binary = tmp_path / "x.idx", tmp_path / "x.bin"
    index.write_bytes((data / "train_text_document.idx").read_bytes())
    binary.write_bytes((data / "train_text_document.bin").read_bytes())
    damage(index, binary)
    with pytest.raises(DataError, match=message):
        check([str(tmp_path / "x")], shape, tmp_path / "none")


@pytest.mark.parametrize("name", ["d", "d_text_document.bin", "d_text_document.idx"])
def test_a_similar_prefix_is_suggested(tokenized, shape, tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}\.idx is missing; did you mean {tokenized}\?"):
        check([f"{tmp_path}/{name}"], shape, tmp_path / "none")


def test_empty_data_are_refused(shape, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(tmp_path / "x.bin"), dtype=numpy.uint16)
    builder.finalize(str(tmp_path / "x.idx"))
    with pytest.raises(DataError, match="holds no tokens"):
        check([str(tmp_path / "x")], shape, tmp_path / "none")


def samples(ranks, micro, consumed=0):
    """All ranks' samples, in the order in which global batches of 8 consume them."""
    samplers = [
        BatchSampler(total=32, consumed=consumed, micro_batch_size=micro, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    micro_batches = [list(sampler) for sampler in samplers]
    per_step = 8 // (micro * ranks)
    steps = []
    for first in range(0, len(micro_batches[0]), per_step):
        step = []
        for own in micro_batches:
            step += itertools.chain.from_iterable(own[first : first + per_step])
        steps.append(sorted(step))
    return steps


def test_each_step_takes_the_same_samples_under_any_layout():
    expected = [list(range(step, step + 8)) for step in range(0, 32, 8)]
    for ranks, micro in ((1, 1), (1, 8), (2, 2), (4, 2), (8, 1)):
        assert samples(ranks, micro) == expected
        assert samples(ranks, micro, consumed=16) == expected[2:]
