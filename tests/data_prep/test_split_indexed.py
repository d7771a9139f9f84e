import json
from itertools import pairwise

import numpy as np
import pytest

from data_prep import merge_indexed, preprocess, split_indexed
from data_prep.tokenization.indexed_dataset import IndexedFile
from galen import api, manifest
from galen.errors import DataError, UsageError


@pytest.fixture
def tokens(tmp_path, tiny_tokenizer):
    """The prefix of documents of 0 to 59 words, those of 10 windows of 7 ids too."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdef"), size)) for size in random.permutation(60)]
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prefix = tmp_path / "d"
    names = ["--input", str(file), "--output-prefix", str(prefix), "--append-eod"]
    preprocess.main([*names, "--tokenizer-model", str(tiny_tokenizer), "--workers", "1"])
    return tmp_path / "d_text_document"


def split(tokens, *lengths):
    return api.split_indexed(tokens, tokens.parent / "s", lengths)


def documents(prefix):
    file = IndexedFile(prefix)
    return [[ids.tolist() for ids in file.document(n)] for n in range(file.documents)]


def test_each_document_is_in_the_file_of_its_length(tokens, monkeypatch):
    monkeypatch.setattr(split_indexed, "DOCUMENTS", 7)
    files = split(tokens, 20, 40)
    found = []
    names = ["0-19", "20-39", "40"]
    for name, (first, last) in zip(names, pairwise([0, 20, 40, 10**9]), strict=True):
        own = documents(tokens.parent / f"s_{name}_text_document")
        expected = [
            document for document in documents(tokens) if first <= sum(map(len, document)) < last
        ]
        assert own == expected
        made = manifest.read(tokens.parent / f"s_{name}_manifest.json", "preprocess")
        assert made["counts"]["documents"] == len(own)
        assert made["config"]["document_lengths"] == name
        found += own
    assert [one.path.name for one in files] == [f"s_{name}" for name in names]
    assert sorted(found) == sorted(documents(tokens))
    assert not list(tokens.parent.glob(".*"))


def test_a_complete_split_is_kept_and_not_merged_again(tokens, caplog):
    split(tokens, 20)
    caplog.set_level("INFO")
    split(tokens, 20)
    assert caplog.text.count("already complete") == 2
    with pytest.raises(DataError, match="made with another config: document_lengths"):
        prefixes = [str(tokens.parent / "s_0-19"), str(tokens.parent / "s_20")]
        merge_indexed.main(["--input", *prefixes, "--output-prefix", str(tokens.parent / "m")])


@pytest.mark.parametrize("lengths", [(0,), (8, 8), (9, 3)])
def test_lengths_must_ascend(tokens, lengths):
    with pytest.raises(UsageError, match="must be ascending"):
        split(tokens, *lengths)
