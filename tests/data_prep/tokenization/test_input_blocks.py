import bz2
import gzip
import lzma

import pytest
import zstandard

from data_prep.files import decompress
from data_prep.tokenization import input_blocks
from data_prep.tokenization.input_blocks import FileRange, LongLine, read_blocks, shard_inputs
from galen.errors import DataError, UsageError


def files(folder, **sizes):
    paths = []
    for name, size in sizes.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(b"123456789\n" * (size // 10))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [((10, 10, 1000), 3, [1, 1, 1]), ((1000, 10), 2, [1, 1]), ((10,) * 9, 3, [3, 3, 3])],
)
def test_compressed_files_fill_all_shards(tmp_path, sizes, shards, expected):
    paths = files(tmp_path, **{f"{n}_gz": size for n, size in enumerate(sizes)})
    shares = shard_inputs(paths, shards)
    assert [len(share) for share in shares] == expected
    assert [part.path for share in shares for part in share] == paths


def test_plain_and_compressed_files_keep_their_order(tmp_path):
    paths = files(tmp_path, a_gz=10, b_gz=10, c_jsonl=1000, d_gz=500, e_jsonl=300)
    for shards in (2, 3, 5, 7):
        parts = [part for share in shard_inputs(paths, shards) for part in share]
        places = [(paths.index(part.path), part.start) for part in parts]
        assert places == sorted(places)
        for path in paths:
            assert sum(part.size for part in parts if part.path == path) == path.stat().st_size


def test_more_shards_than_compressed_files(tmp_path):
    with pytest.raises(
        UsageError, match=r"fills only 2 of them \(2 of the 2 files are compressed or tables, which"
    ):
        shard_inputs(files(tmp_path, a_gz=10, b_gz=10), 3)


COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
MEMBERS = {
    "short": [b"a\n", b"b\n"] * 300,
    "blocks of bgzip": [b"word word\n" * 6528] * 20 + [b""],
    "beyond a chunk": [b"x" * (5 << 20) + b"\n"] * 4,
    "a chunk": [b"x" * (decompress.CHUNK_BYTES - 1) + b"\n"] * 4,
    "empty": [b"", b"", b"a\n", b""],
}


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("padding", [0, 200_000])
@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_concatenated_compressed_streams_are_one(tmp_path, members, padding, ending):
    compress = COMPRESS[ending]
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(
        b"".join(map(compress, members))
        + bytes(padding if ending in decompress.PADDED_SUFFIXES else 0)
    )
    content = b"".join(block.data for block in read_blocks([FileRange(path)], 1 << 20, ["text"]))
    assert content == b"".join(members)


def test_an_xz_stream_that_asks_for_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(
        lzma.compress(b"{}\n", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}])
    )
    with pytest.raises(
        DataError, match=r"a\.jsonl\.xz is not complete xz data: Memory usage limit exceeded"
    ):
        list(read_blocks([FileRange(path)], 1 << 20, ["text"]))


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_stream_that_breaks_off_is_reported(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(COMPRESS[ending](b"word\n" * 1000)[:-3])
    name = decompress.FORMATS[ending]
    with pytest.raises(
        DataError, match=rf"a\.jsonl\{ending} is not complete {name} data: it ends too early"
    ):
        list(read_blocks([FileRange(path)], 1 << 20, ["text"]))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_of_a_line_beyond_the_limit_only_the_length_is_kept(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(input_blocks, "LONGEST_LINE", 1000)
    path = tmp_path / f"a{ending}"
    content = b"one\n" + b"x" * 5000 + b"\ntwo\n"
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    found = list(read_blocks([FileRange(path)], 100, ["text"]))
    assert [block.data.length for block in found if isinstance(block.data, LongLine)] == [5001]
    short = [
        content[block.start : block.end] for block in found if not isinstance(block.data, LongLine)
    ]
    assert b"".join(short) == b"one\ntwo\n"
