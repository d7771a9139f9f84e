import bz2
import codecs
import errno
import gzip
import hashlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import preprocess
from data_prep.tokenization import worker_pool, write_tokens
from galen import manifest
from galen.errors import DataError, UsageError
from tests.conftest import ROOT
from tests.data_prep.material import run, write_lines

TEXTS = [
    "the patient was treated",
    "",
    "a drug & the results ≥ 3 肺炎",
    "x",
    "  \n the end\u2009<eos> of it  ",
]


def expected(tokenizer, texts, eod):
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    reference.no_truncation()
    return [
        [*ids, eod] if ids else []
        for ids in (reference.encode(text, add_special_tokens=False).ids for text in texts)
    ]


def test_read_by_megatron_and_equal_to_its_own_writer(tmp_path, tokenizer_folder):
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    first = write_lines(tmp_path / "in/b.jsonl", [{"text": text} for text in TEXTS[:3]])
    second = write_lines(
        tmp_path / "in/a.jsonl.gz", [{"text": text, "other": 1} for text in TEXTS[3:]]
    )
    run(tokenizer_folder, [first, second], tmp_path / "out/p", "--append-eod", "--workers", "2")
    documents = expected(tokenizer_folder, TEXTS, eod=1)
    dataset = IndexedDataset(str(tmp_path / "out/p_text_document"))
    assert dataset.index.dtype == np.uint16
    assert [dataset[i].tolist() for i in range(len(dataset))] == [ids for ids in documents if ids]
    # the empty document has no sequence
    assert dataset.document_indices.tolist() == [0, 1, 1, 2, 3, 4]

    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=np.uint16)
    for ids in documents:
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(str(tmp_path / "m.idx"))
    for ending in ("bin", "idx"):
        assert (tmp_path / f"out/p_text_document.{ending}").read_bytes() == (
            tmp_path / f"m.{ending}"
        ).read_bytes()

    manifest = json.loads((tmp_path / "out/p_manifest.json").read_text())
    assert manifest["stage"] == "preprocess"
    assert manifest["tokenizer"]["eod"] == {"token": "<eos>", "id": 1}
    assert manifest["tokenizer"]["vocab_size"] == len(
        json.loads((tokenizer_folder / "tokenizer.json").read_text())["model"]["vocab"]
    )
    tokens = sum(map(len, documents))
    size = sum(len(text.encode()) for text in TEXTS)
    counts = manifest["counts"]
    assert {name: counts[name] for name in ("documents", "tokens", "bytes", "longest")} == {
        "documents": 5,
        "tokens": tokens,
        "bytes": size,
        "longest": max(map(len, documents)),
    }
    found = counts["outputs"]["text"]
    assert documents[found["longest_document"]] == max(documents, key=len)
    assert found["ids_never_used"] == manifest["tokenizer"]["vocab_size"] - len(
        {i for ids in documents for i in ids}
    )
    for record in manifest["outputs"]:
        assert (
            hashlib.sha256((tmp_path / "out" / record["path"]).read_bytes()).hexdigest()
            == record["sha256"]
        )
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(Path(first).read_bytes()).hexdigest()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "p_manifest.json",
        "p_text_document.bin",
        "p_text_document.idx",
    ]


@pytest.mark.slow
def test_without_eod_with_another_and_another_key(tmp_path, tokenizer_folder):
    source = write_lines(tmp_path / "a.jsonl", [{"body": "the drug"}])
    run(tokenizer_folder, [source], tmp_path / "plain", "--json-keys", "body")
    run(
        tokenizer_folder / "tokenizer.json",
        [source],
        tmp_path / "marked",
        "--json-keys",
        "body",
        "--append-eod",
        "--eod-token",
        "<other>",
    )
    plain = np.fromfile(tmp_path / "plain_body_document.bin", dtype=np.uint16).tolist()
    (tmp_path / "windows.jsonl").write_bytes(codecs.BOM_UTF8 + b'{"body": "the drug"}\r\n')
    run(
        tokenizer_folder,
        [str(tmp_path / "windows.jsonl")],
        tmp_path / "windows",
        "--json-keys",
        "body",
    )
    assert np.fromfile(tmp_path / "windows_body_document.bin", dtype=np.uint16).tolist() == plain
    assert [plain] == [ids[:-1] for ids in expected(tokenizer_folder, ["the drug"], 0)]
    assert np.fromfile(tmp_path / "marked_body_document.bin", dtype=np.uint16).tolist() == [
        *plain,
        2,
    ]


def test_sentencepiece(tmp_path):
    import sentencepiece

    text = tmp_path / "corpus.txt"
    text.write_text(
        "\n".join(
            ["the patient was treated with the drug", "results of the treatment are told here"] * 20
        )
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=60,
        model_type="bpe",
        byte_fallback=False,
        minloglevel=2,
    )
    source = write_lines(tmp_path / "a.jsonl", [{"text": "the drug"}, {"text": "the patient"}])
    run(tmp_path / "tokenizer.model", [source], tmp_path / "p", "--append-eod")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ids = [
        i
        for text in ("the drug", "the patient")
        for i in [*processor.encode(text), processor.eos_id()]
    ]
    assert np.fromfile(tmp_path / "p_text_document.bin", dtype=np.uint16).tolist() == ids


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        (b'{"text": "a"}\n\n{"body": "a"}\n', "a.jsonl, line 3: no key 'text'.*it has: body"),
        (b'["text"]\n', "line 1: a list, but each line must be an object with the key 'text'"),
        (b'{\n"text": "a"\n}\n', "line 1: not JSON .*; each line must be a complete record"),
        (b'{"text": 3}\n', "line 1: 'text' is not text but int"),
        (b'{"text": "\\ud800"}\n', "line 1: 'text' holds a lone surrogate"),
        (b'{"text": "\xff"}\n', "line 1: not UTF-8"),
        (b'{"text": "a\\u0000"}\n', "line 1: 'text' holds a NUL"),
        (b"", "no document"),
    ],
)
def test_bad_lines(tmp_path, tokenizer_folder, lines, message):
    (tmp_path / "a.jsonl").write_bytes(lines)
    with pytest.raises(DataError, match=message):
        run(tokenizer_folder, [str(tmp_path / "a.jsonl")], tmp_path / "p")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [
        "a.jsonl"
    ]


def test_bad_files_and_options(tmp_path, tokenizer_folder, caplog):
    good = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"b\.jsonl\.gz is not complete gzip data"):
        run(tokenizer_folder, [str(tmp_path / "b.jsonl.gz")], tmp_path / "p")
    with pytest.raises(DataError, match="does not exist"):
        run(tokenizer_folder, [str(tmp_path / "c.jsonl")], tmp_path / "p")
    with pytest.raises(DataError, match=r"bad.json is not a tokenizer"):
        run(tmp_path / "bad.json", [good], tmp_path / "p")
    with pytest.raises(DataError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        run(tmp_path / "none", [good], tmp_path / "p")
    with pytest.raises(DataError, match="'<end>' is not in the vocabulary"):
        run(
            tokenizer_folder,
            [good, str(tmp_path / "a*.jsonl")],
            tmp_path / "p",
            "--append-eod",
            "--eod-token",
            "<end>",
        )
    assert caplog.messages == [f"input files are read more than once: {good}"]
    with pytest.raises(DataError, match="'<end>' is not in the vocabulary"):
        run(tokenizer_folder, [good], tmp_path / "p", "--append-eod", "--eod-token", "<end>")
    (tmp_path / "none/tokenizer.json").write_bytes(
        (tokenizer_folder / "tokenizer.json").read_bytes()
    )
    with pytest.raises(DataError, match="names no end-of-document token; set it with --eod-token"):
        run(tmp_path / "none", [good], tmp_path / "p", "--append-eod")
    with pytest.raises(UsageError, match="at least 1"):
        run(tokenizer_folder, [good], tmp_path / "p", "--workers", "0")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/manifest.json").write_text('{"stage": "curate"}')
    with pytest.raises(DataError, match=r"corpus contains no documents: only manifest\.json"):
        run(tokenizer_folder, [str(tmp_path / "corpus")], tmp_path / "p")
    manifest.write(
        tmp_path / "corpus/manifest.json",
        stage="curate",
        inputs=[],
        config={},
        outputs=[],
        counts={},
    )
    with pytest.raises(
        UsageError, match=r"a complete corpus .*; pass one split, such as .*corpus/train"
    ):
        run(tokenizer_folder, [str(tmp_path / "corpus")], tmp_path / "p")
    with pytest.raises(UsageError, match="add the beginning of the file names, such as none/train"):
        run(tokenizer_folder, [good], "none/")
    with pytest.raises(
        UsageError, match=r"--tokenizer-type: omit it, .*\n +--partitions: .* --shards N$"
    ):
        run(
            tokenizer_folder,
            [good],
            tmp_path / "p",
            "--tokenizer-type",
            "HuggingFaceTokenizer",
            "--partitions=2",
        )


def test_a_bos_token_that_is_not_wanted_need_not_be_in_the_vocabulary(tmp_path, tokenizer_folder):
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    source = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    run(tmp_path, [source], tmp_path / "p")
    with pytest.raises(
        DataError, match="beginning-of-document token '<s>' is not in the vocabulary"
    ):
        run(tmp_path, [source], tmp_path / "q", "--prepend-bos")


def test_a_complete_output_is_reported_and_other_runs_refused(
    tmp_path, tokenizer_folder, capsys, caplog
):
    source = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    run(tokenizer_folder, [source], tmp_path / "p")
    capsys.readouterr()
    caplog.set_level(logging.INFO)
    # as a kill after the manifest leaves it
    (tmp_path / ".p_text_document.lengths.partial").touch()
    run(tokenizer_folder, [source], tmp_path / "p")
    assert "p_text_document.bin is already complete: 1 documents, 1 tokens" in caplog.text
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(DataError, match="append_eod"):
        run(tokenizer_folder, [source], tmp_path / "p", "--append-eod")
    (tmp_path / "p_manifest.json").unlink()
    with pytest.raises(DataError, match="exists already"):
        run(tokenizer_folder, [source], tmp_path / "p")


STOPPING = """
import os, resource, signal, sys
from pathlib import Path
from data_prep import preprocess
from data_prep.tokenization import worker_pool, write_tokens
from data_prep.tokenization.indexed_dataset import IndexedFileWriter
from data_prep.tokenization.job import TokenJob
from galen import cli

worker_pool.BLOCK_BYTES, write_tokens.SAVE_SECONDS = 1 << 14, 0.0
place, count = sys.argv.pop(1), int(sys.argv.pop(1))

def kill(owner, name):
    function = getattr(owner, name)
    def killing(*given, **named):
        global count
        if name != "replace" or str(given[0]).endswith(".idx.partial"):
            count -= 1
            if not count:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    setattr(owner, name, killing)

if place == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))
else:
    owners = {
        "append_result": write_tokens,
        "save": TokenJob,
        "write_index": IndexedFileWriter,
        "replace": Path,
        "write": preprocess.manifest,
    }
    kill(owners[place], place)
if __name__ == "__main__":
    cli.run(preprocess.main)
"""


@pytest.fixture
def stopped(tmp_path, tokenizer_folder):
    """Start the command in a process of its own that is killed, or that may write no larger files.

    Return how it ended.
    """
    (tmp_path / "stopping.py").write_text(STOPPING)

    def start(place, count, inputs, prefix, *options):
        command = [
            sys.executable,
            str(tmp_path / "stopping.py"),
            place,
            str(count),
            "--input",
            *inputs,
            "--output-prefix",
            str(prefix),
        ]
        command += ["--tokenizer-model", str(tokenizer_folder), *options]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def finals(folder, name):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(f"{name}_"))


@pytest.mark.slow
def test_killed_for_real_goes_on_with_the_same_bytes(
    tmp_path, tokenizer_folder, stopped, monkeypatch
):
    records = [
        {
            "text": (
                f"the patient {n} was treated with drug {n * n} and the results are told here " * 3
            )
        }
        for n in range(2000)
    ]
    sources = [
        write_lines(tmp_path / "a.jsonl.gz", records),
        write_lines(tmp_path / "b.jsonl", records[::2]),
    ]
    run(tokenizer_folder, sources, tmp_path / "undisturbed", "--append-eod", "--workers", "2")
    note, known = tmp_path / ".p_text_document.state.partial", 0
    for place, count in (
        ("append_result", 5),
        ("save", 9),
        ("write_index", 1),
        ("replace", 1),
        ("write", 1),
    ):
        ended = stopped(place, count, sources, tmp_path / "p", "--append-eod", "--workers", "2")
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        state = json.loads(note.read_text())["state"]
        assert state["outputs"]["text"]["documents"] > known or place not in (
            "append_result",
            "save",
        )
        known = state["outputs"]["text"]["documents"]
        assert not (tmp_path / "p_manifest.json").exists()
    assert known == 3000
    read = []
    original = write_tokens.read_blocks
    monkeypatch.setattr(
        write_tokens,
        "read_blocks",
        lambda *arguments: (read.append(arguments[3:5]), original(*arguments))[1],
    )
    run(tokenizer_folder, sources, tmp_path / "p", "--append-eod", "--workers", "2")
    assert read[-1] == (1, Path(sources[1]).stat().st_size)  # nothing was left to do
    assert bins(tmp_path, "p_text_document") == bins(tmp_path, "undisturbed_text_document")
    manifests = [
        json.loads((tmp_path / f"{name}_manifest.json").read_text())
        for name in ("p", "undisturbed")
    ]
    assert manifests[0]["counts"] == manifests[1]["counts"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".p")] == []


@pytest.mark.slow
def test_disk_full(tmp_path, tokenizer_folder, stopped):
    source = write_lines(tmp_path / "a.jsonl", [{"text": f"drug {n}"} for n in range(1000)])
    run(tokenizer_folder, [source], tmp_path / "whole", "--stats")
    sizes = [
        (tmp_path / f"whole_{name}").stat().st_size
        for name in ("text_document.bin", "text_document.idx", "stats.html")
    ]
    assert sizes == sorted(sizes)
    # each time another of them is too large
    for limit in (sizes[0] // 2, sum(sizes[:2]) // 2, sum(sizes[1:]) // 2):
        ended = stopped("limit", limit, [source], tmp_path / "p", "--stats", "--workers", "2")
        assert ended.returncode == 1
        assert re.fullmatch(
            r"error: cannot write \S+: File too large; free some space and .* to resume",
            ended.stderr.splitlines()[-1],
        )
        assert "Traceback" not in ended.stderr
        assert finals(tmp_path, "p") == []
    run(tokenizer_folder, [source], tmp_path / "p", "--stats")
    assert bins(tmp_path, "p_text_document") == bins(tmp_path, "whole_text_document")


@pytest.mark.slow
def test_files_that_cannot_be_read_and_another_tokenizer(tmp_path, tokenizer_folder, capsys):
    from data_prep import merge_indexed

    good = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    for ending in (".jsonl.gz", ".jsonl.bz2"):
        # fails with an I/O error, even for root
        (tmp_path / f"memory{ending}").symlink_to("/proc/self/mem")
        with pytest.raises(DataError, match=rf"memory\{ending} cannot be read: Input/output error"):
            run(tokenizer_folder, [good, str(tmp_path / f"memory{ending}")], tmp_path / "p")
        assert finals(tmp_path, "p") == []
    other = tmp_path / "other"
    other.mkdir()
    changed = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    changed["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(changed))
    (other / "tokenizer_config.json").write_bytes(
        (tokenizer_folder / "tokenizer_config.json").read_bytes()
    )
    capsys.readouterr()
    run(other, [good], tmp_path / "p")  # another command: what the first left is not taken up
    run(tokenizer_folder, [good], tmp_path / "q")
    with pytest.raises(
        DataError,
        match=r"belongs to another run \(tokenizer: .*\); remove it or choose another output",
    ):
        run(tokenizer_folder, [good], tmp_path / "p")
    with pytest.raises(DataError, match="were made with another config: tokenizer: '"):
        merge_indexed.main(
            [
                "--input",
                str(tmp_path / "p"),
                str(tmp_path / "q"),
                "--output-prefix",
                str(tmp_path / "m"),
            ]
        )
    assert finals(tmp_path, "m") == []


def pack(path, records):
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    if path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor().compress(data[:50]) + zstandard.ZstdCompressor().compress(
            data[50:]
        )
    elif path.suffix == ".bz2":
        data = bz2.compress(data)
    path.write_bytes(data)


def bins(folder, name):
    return [(folder / f"{name}.{ending}").read_bytes() for ending in ("bin", "idx")]


@pytest.mark.slow
def test_every_kind_of_input_gives_the_same_bytes(tmp_path, tokenizer_folder, monkeypatch):
    import pyarrow
    from pyarrow import parquet

    records = [
        {"text": f"the patient number {n} was treated ≥ {n * n}", "other": n} for n in range(3000)
    ]
    plain = write_lines(tmp_path / "a.jsonl", records)
    run(tokenizer_folder, [plain], tmp_path / "plain", "--encoder", "reference")
    table = pyarrow.Table.from_pylist(records)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    with pyarrow.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    for name in ("a.jsonl.zst", "a.jsonl.bz2"):
        pack(tmp_path / name, records)
    monkeypatch.setattr(worker_pool, "BLOCK_BYTES", 5000)
    for name in ("a.jsonl", "a.jsonl.zst", "a.jsonl.bz2", "a.parquet", "a.arrow", "file.arrow"):
        run(tokenizer_folder, [str(tmp_path / name)], tmp_path / "o" / name, "--workers", "2")
        assert bins(tmp_path / "o", f"{name}_text_document") == bins(
            tmp_path, "plain_text_document"
        ), name
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(plain).read_bytes())))
    run(tokenizer_folder, ["-"], tmp_path / "stdin")
    assert bins(tmp_path, "stdin_text_document") == bins(tmp_path, "plain_text_document")
    (tmp_path / "cut.jsonl.zst").write_bytes((tmp_path / "a.jsonl.zst").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cut\.jsonl\.zst is not complete Zstandard data"):
        run(tokenizer_folder, [str(tmp_path / "cut.jsonl.zst")], tmp_path / "cut")


def test_a_merged_set_is_merged_with_another(tmp_path, tokenizer_folder):
    from data_prep import merge_indexed

    for name in "abc":
        file = write_lines(tmp_path / f"{name}.jsonl", [{"text": f"the drug {name}"}])
        run(tokenizer_folder, [file], tmp_path / name)
    for names, output in (("ab", "ab"), (["ab", "c"], "first"), (["c", "ab"], "last")):
        inputs = [str(tmp_path / name) for name in names]
        merge_indexed.main(["--input", *inputs, "--output-prefix", str(tmp_path / output)])
        manifest = json.loads((tmp_path / f"{output}_manifest.json").read_text())
        assert manifest["config"]["merged"] == 2
    assert manifest["counts"]["documents"] == 3


@pytest.mark.slow
def test_shards_merge_to_the_same_bytes(tmp_path, tokenizer_folder, monkeypatch):
    from data_prep import describe, merge_indexed

    words = ["the drug", "XYZ"]
    files = [
        write_lines(
            tmp_path / f"{n}.jsonl",
            [{"text": f"{words[n]} {n} {m} " * (m % 5)} for m in range(200)],
        )
        for n in range(2)
    ]
    run(tokenizer_folder, files, tmp_path / "one", "--append-eod")
    run(tokenizer_folder, files, tmp_path / "s", "--append-eod", "--shards", "3", "--shard", "1")
    with pytest.raises(DataError, match="of 3 shards these are not finished: 0, 2"):
        merge_indexed.main(
            ["--input", str(tmp_path / "s_*-of-00003"), "--output-prefix", str(tmp_path / "m")]
        )
    run(tokenizer_folder, files, tmp_path / "s", "--append-eod", "--shards", "3")
    merge_indexed.main(
        ["--input", str(tmp_path / "s_*-of-00003"), "--output-prefix", str(tmp_path / "m")]
    )
    assert bins(tmp_path, "m_text_document") == bins(tmp_path, "one_text_document")

    def refuses(*_):
        raise OSError(errno.EINVAL, "not on this file system")

    monkeypatch.setattr(merge_indexed.os, "sendfile", refuses)
    merge_indexed.main(
        ["--input", str(tmp_path / "s_*-of-00003"), "--output-prefix", str(tmp_path / "slow")]
    )
    assert bins(tmp_path, "slow_text_document") == bins(tmp_path, "one_text_document")
    one, merged = (
        json.loads((tmp_path / f"{name}_manifest.json").read_text())["counts"]
        for name in ("one", "m")
    )
    assert one == merged
    parts = [
        json.loads((tmp_path / f"s_{n:05d}-of-00003_manifest.json").read_text())["counts"][
            "outputs"
        ]["text"]
        for n in range(3)
    ]
    assert len({part["ids_never_used"] for part in parts}) > 1
    assert (
        describe.main(
            [str(tmp_path / "m_text_document"), "--compare", str(tmp_path / "one_text_document")]
        )
        == 0
    )
    assert describe.main([str(tmp_path / "m_text_document"), "--check"]) == 0
    data = bytearray((tmp_path / "m_text_document.bin").read_bytes())
    data[10] ^= 1
    (tmp_path / "m_text_document.bin").write_bytes(data)
    assert (
        describe.main(
            [str(tmp_path / "m_text_document"), "--compare", str(tmp_path / "one_text_document")]
        )
        == 1
    )
    with pytest.raises(DataError, match="does not have the SHA-256"):
        describe.main([str(tmp_path / "m_text_document"), "--check"])


def test_skipping_and_limits(tmp_path, tokenizer_folder):
    lines = (
        b'{"text": "the drug"}\nnot\n{"text": "the patient was treated with the drug"}\n{"body":'
        b' ""}\n{"text": "x"}\n'
    )
    (tmp_path / "a.jsonl").write_bytes(lines)
    run(tokenizer_folder, [str(tmp_path / "a.jsonl")], tmp_path / "p", "--on-bad-line", "skip")
    counts = json.loads((tmp_path / "p_manifest.json").read_text())["counts"]
    assert (counts["documents"], counts["skipped"]) == (3, {"not JSON": 1, "no such key": 1})
    assert "a.jsonl, line 2: not JSON" in counts["skipped_examples"][0]
    run(
        tokenizer_folder,
        [str(tmp_path / "a.jsonl")],
        tmp_path / "two",
        "--on-bad-line",
        "skip",
        "--max-documents",
        "2",
    )
    counts = json.loads((tmp_path / "two_manifest.json").read_text())["counts"]
    assert (counts["documents"], counts["skipped"]) == (2, {"not JSON": 1})


def test_a_limit_holds_when_the_command_is_killed_before_its_manifest(
    tmp_path, tokenizer_folder, monkeypatch
):
    source = write_lines(tmp_path / "a.jsonl", [{"text": f"drug {n}"} for n in range(500)])
    monkeypatch.setattr(worker_pool, "BLOCK_BYTES", 1000)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preprocess.manifest, "write", killed)
        run(tokenizer_folder, [source], tmp_path / "p", "--max-documents", "7")
    run(tokenizer_folder, [source], tmp_path / "p", "--max-documents", "7")
    assert json.loads((tmp_path / "p_manifest.json").read_text())["counts"]["documents"] == 7


def test_a_sample_is_from_all_over_the_input(tmp_path, tokenizer_folder, monkeypatch):
    files = [
        write_lines(tmp_path / name, [{"text": f"{name} {n}"} for n in range(20000)])
        for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl")
    ]
    sampled = []
    choose = preprocess.choose_encoder
    monkeypatch.setattr(
        preprocess,
        "choose_encoder",
        lambda tokenizer, texts, *given: (sampled.append(texts), choose(tokenizer, texts, *given))[
            1
        ],
    )
    run(tokenizer_folder, files[:1], tmp_path / "one", "--max-documents", "1")
    run(tokenizer_folder, files, tmp_path / "three", "--max-documents", "1")
    one, three = sampled
    assert len(one) == len(set(one)) > 100
    assert sum(int(text.split()[1]) >= 10000 for text in one) >= 50
    assert {text.split()[0] for text in three} == {"a.jsonl", "b.jsonl.gz", "c.jsonl"}
