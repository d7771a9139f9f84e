"""Raw files opened for reading, on disk or behind an fsspec address."""

import contextlib
import errno
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from datatrove.io import DataFolder

from galen.errors import one_line

_BUFFER = 2**20


@contextlib.contextmanager
def open_raw(folder: DataFolder, path: str, seekable: bool = False) -> Iterator[BinaryIO]:
    """Yield a file of a folder as a stream like that of a local file.

    It is read once from the beginning unless it must be `seekable`.

    Over HTTP a stream needs no server that knows ranges; what fsspec gives has no `readline` with a
    size.
    """
    if folder.is_local():
        with folder.open(path, "rb") as local:
            yield cast(BinaryIO, local)
        return
    protocols = (folder.fs.protocol,) if isinstance(folder.fs.protocol, str) else folder.fs.protocol
    streamed = {"block_size": 0} if not seekable and "http" in protocols else {}
    with _opened(folder, path, streamed) as remote:
        yield cast(BinaryIO, io.BufferedReader(_Counted(remote), _BUFFER))


def _opened(folder: DataFolder, path: str, options: dict[str, int]) -> Any:
    try:
        return folder.open(path, "rb", **options)
    except FileNotFoundError:
        raise
    except Exception as error:  # no credentials, no such host: nothing that a file holds
        raise OSError(
            errno.EIO, f"cannot be opened ({type(error).__name__}: {one_line(error)})", path
        ) from error


class _Counted(io.RawIOBase):
    """A remote file as a raw stream that knows how far it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # each kind of store has errors of its own
            raise OSError(
                errno.EIO, f"reading broke off ({type(error).__name__}: {one_line(error)})"
            ) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position
