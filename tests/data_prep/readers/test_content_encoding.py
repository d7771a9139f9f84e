import gzip
import zlib

import brotli
import pytest

from data_prep.readers.content_encoding import decompressed
from data_prep.readers.record import RecordRejectedError

PAGE = b"<html><p>A page.</p></html>" * 50
LIMIT = 10_000
PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
}


@pytest.mark.parametrize("name", PACK)
def test_each_compression(name):
    data = PACK[name](PAGE)
    assert decompressed(data, f" {name.upper()} ", LIMIT) == PAGE
    assert decompressed(PAGE, name, LIMIT) == PAGE, "an archive may hold it decompressed"
    for bad in (data[:-9], data[: len(data) // 2], b"\xff" * 40):
        with pytest.raises(RecordRejectedError, match="the page is not complete"):
            decompressed(bad, name, LIMIT)
    with pytest.raises(RecordRejectedError, match=r"longer than 10,000 bytes \(max_record_bytes\)"):
        decompressed(PACK[name](bytes(5_000_000)), name, LIMIT)


def test_other_words():
    bare = zlib.compressobj(wbits=-15)
    assert decompressed(bare.compress(PAGE) + bare.flush(), "deflate", LIMIT) == PAGE
    assert decompressed(gzip.compress(brotli.compress(PAGE)), "br, gzip", LIMIT) == PAGE
    assert (
        decompressed(gzip.compress(PAGE[:99]) + gzip.compress(PAGE[99:]) + b"rest", "gzip", LIMIT)
        == PAGE
    )
    for words in ("", "identity", "utf-8"):
        assert decompressed(b"page", words, LIMIT) == b"page"
    assert decompressed(b"", "gzip", LIMIT) == b""
    with pytest.raises(RecordRejectedError, match="compressed with zstd, which is not supported"):
        decompressed(b"x", "zstd", LIMIT)
