"""Decompression by a file's suffix: gzip, bzip2, xz, Zstandard.

Concatenated streams are read as one. Only a chunk of the output is in memory at a time, however
large the output of a small input is.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, BinaryIO

import zstandard

FORMATS = {".gz": "gzip", ".tgz": "gzip", ".zst": "Zstandard", ".bz2": "bzip2", ".xz": "xz"}
"""Names of the formats by suffix in lower case."""

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
"""Suffixes of single compressed files."""

PADDED_SUFFIXES = (".gz", ".tgz", ".xz")
"""Formats that allow zeros between and after streams."""

_NEVER_EMPTY = (".bz2", ".xz")
"""Formats for which an empty file is incomplete, as in Python's own modules."""

CHUNK_BYTES = 1 << 20
"""Maximum size of a chunk of output."""

_INPUT_BYTES = 1 << 14
"""Size of a chunk of input; of a damaged one, the output before the damage is lost."""


class CorruptDataError(Exception):
    """Compressed data is damaged or truncated."""


def format_of(name: str) -> str | None:
    """Return the compression format of a file's name, or None for other files."""
    return FORMATS.get(_suffix(name))


def open_decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    """Return a buffered stream of a file's decompressed content, or `raw` for other files.

    It cannot seek. Its reads raise `CorruptDataError`.
    """
    if format_of(name) is None:
        return raw
    return io.BufferedReader(_DecompressedStream(decompress(raw, name)), CHUNK_BYTES)


def decompress(raw: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield a file's content, decompressed by its name's suffix, in chunks.

    Raises:
        CorruptDataError: it is damaged or truncated.
    """
    suffix = _suffix(name)
    if suffix in FORMATS:
        yield from _decompressed(raw, suffix)
        return
    while data := raw.read(CHUNK_BYTES):
        yield data


def _decompressed(raw: BinaryIO, suffix: str) -> Iterator[bytes]:
    """Yield the content of all streams of a file in chunks."""
    stream: _Decompressor | None = None
    is_empty = True
    while data := raw.read(_INPUT_BYTES):
        is_empty = False
        while data:
            if stream is None:
                if suffix in PADDED_SUFFIXES:
                    data = data.lstrip(b"\0")
                if not data:
                    break
                stream = _DECOMPRESSORS[suffix]()
            try:
                yield from stream.chunks(data)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError) as error:
                # bz2 reports damage as an OSError
                raise CorruptDataError(str(error)) from None
            data = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None or (is_empty and suffix in _NEVER_EMPTY):
        raise CorruptDataError("it ends too early")


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


class _DecompressedStream(io.RawIOBase):
    """A stream of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the rest of a chunk, as far as it fits into a buffer."""
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = memoryview(chunk)
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size


class _Decompressor:
    """Decompresses one stream."""

    eof = False
    unused_data = b""
    """Input after the stream's end."""

    def chunks(self, data: bytes) -> Iterator[bytes]:
        """Yield the output of the next bytes of input."""
        raise NotImplementedError


class _Gzip(_Decompressor):
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def chunks(self, data: bytes) -> Iterator[bytes]:
        while chunk := self._stream.decompress(data, CHUNK_BYTES):
            yield chunk
            # its unconsumed_tail is then what follows the stream, which is unused_data too
            if self._stream.eof:
                break
            data = self._stream.unconsumed_tail
        self.eof = self._stream.eof
        self.unused_data = self._stream.unused_data


class _Bzip2(_Decompressor):
    def __init__(self) -> None:
        self._stream = self._new()

    @staticmethod
    def _new() -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        return bz2.BZ2Decompressor()

    def chunks(self, data: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(data, CHUNK_BYTES)
        while not self._stream.needs_input and not self._stream.eof:
            yield self._stream.decompress(b"", CHUNK_BYTES)
        self.eof = self._stream.eof
        self.unused_data = self._stream.unused_data


class _Xz(_Bzip2):
    """Python's interface to xz is that to bzip2."""

    _MEMORY = 256 << 20
    """Memory limit of a stream; xz -9 needs 65 MiB, a damaged stream may claim 4 GiB."""

    @classmethod
    def _new(cls) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=cls._MEMORY)


class _Zstandard(_Decompressor):
    """The library has no output limit, but a block of 4 bytes expands to at most 128 KiB.

    So the input is passed in small slices.
    """

    _INPUT_BYTES = 1 << 10

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    def chunks(self, data: bytes) -> Iterator[bytes]:
        for first in range(0, len(data), self._INPUT_BYTES):
            yield self._stream.decompress(data[first : first + self._INPUT_BYTES])
            if self._stream.eof:
                self.eof = True
                self.unused_data = self._stream.unused_data + data[first + self._INPUT_BYTES :]
                break


_DECOMPRESSORS: dict[str, type[_Decompressor]] = {
    ".gz": _Gzip,
    ".tgz": _Gzip,
    ".bz2": _Bzip2,
    ".xz": _Xz,
    ".zst": _Zstandard,
}
