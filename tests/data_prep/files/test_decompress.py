import bz2
import gzip
import io
import lzma

import pytest
import zstandard

from data_prep.files.decompress import CorruptDataError, format_of, open_decompressed

COMPRESS = {
    ".gz": gzip.compress,
    ".tgz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
CONTENT = b"".join(b"line %d\n" % n for n in range(300_000))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
def test_the_stream_is_the_content_of_all_streams(suffix):
    compress = COMPRESS[suffix]
    data = compress(CONTENT[:1000]) + compress(b"") + compress(CONTENT[1000:])
    assert open_decompressed(io.BytesIO(data), f"A{suffix.upper()}").read() == CONTENT
    lines = list(open_decompressed(io.BytesIO(data), f"a{suffix}"))
    assert lines == CONTENT.splitlines(keepends=True)


def test_other_files_are_as_they_are():
    raw = io.BytesIO(b"content")
    assert open_decompressed(raw, "a.jsonl") is raw
    assert format_of("a.jsonl") is None


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_comes_before_damage_is_read(suffix):
    compress = COMPRESS[suffix]
    stream = open_decompressed(io.BytesIO(compress(b"good") + b"garbage"), f"a{suffix}")
    assert stream.read1(100) == b"good"
    with pytest.raises(CorruptDataError):
        stream.read1(100)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
def test_data_that_breaks_off_is_an_error(suffix):
    data = COMPRESS[suffix](CONTENT)
    with pytest.raises(CorruptDataError, match="it ends too early"):
        open_decompressed(io.BytesIO(data[:-2]), f"a{suffix}").read()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_file(suffix):
    stream = open_decompressed(io.BytesIO(b""), f"a{suffix}")
    if suffix in (".bz2", ".xz"):
        with pytest.raises(CorruptDataError, match="it ends too early"):
            stream.read()
    else:
        assert stream.read() == b""
