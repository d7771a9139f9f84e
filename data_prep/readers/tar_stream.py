"""Tar archives read as streams, to their very end.

Damage that tarfile ignores is an error here.
"""

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

_NO_HEADER = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]


def files_of(stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Yield the regular files of an archive, each with its stream, valid until the next file.

    Raises:
        TarError: the archive is damaged, breaks off, or is followed by something.
    """
    try:
        chunks: Any = _Chunks(stream)
        with tarfile.open(fileobj=chunks, mode="r|", tarinfo=_Header) as archive:
            for member in archive:
                if member.isfile():
                    yield member, archive.extractfile(member)
            _check_end(archive.fileobj)
    except RecursionError:
        raise tarfile.ReadError("a header that holds hundreds of others") from None


class _Chunks:
    """A stream whose reads return the available bytes, so that an error loses none before it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = stream

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than `size` perhaps."""
        return bytes(self._stream.read1(size))


class _Header(tarfile.TarInfo):
    """A member's header.

    tarfile itself takes a damaged one, or a truncated file, for the end of the archive.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        """Return the next header.

        Raises:
            ReadError: it is damaged, or the archive breaks off.
        """
        try:
            return super().fromtarfile(archive)
        except _NO_HEADER as error:
            raise tarfile.ReadError(str(error)) from None


def _check_end(stream: Any) -> None:
    """Read on behind the archive's end, which also checks its compression.

    Raises:
        ReadError: more follows than empty blocks, which may be the rest of the archive.
    """
    while data := stream.read(2**16):
        if data.strip(b"\0"):
            raise tarfile.ReadError("more follows its end")
