"""Reads torch.save archives inside a file: ZIPs whose parts are neither compressed nor shared."""

import zipfile
from pathlib import Path
from typing import IO

from galen.errors import DataError

_MAX_PICKLE_BYTES = 2**28
_MAX_READ_BYTES = 2**28
_BEFORE_2020 = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of PyTorch's older format, a sequence of pickles."""


class StoredArchive:
    """An archive in `length` bytes of an open file from `offset`.

    Raises:
        DataError: it is damaged, or not one of torch.save.
    """

    def __init__(self, path: Path, file: IO[bytes], offset: int, length: int) -> None:
        self.path = path
        self._file = file
        self._offset = offset
        self._length = length
        if offset + length > path.stat().st_size:
            raise self._damaged(
                f"it has {path.stat().st_size:,} bytes, and a part of it should end at"
                f" {offset + length:,}"
            )
        file.seek(offset)
        if file.read(len(_BEFORE_2020)) == _BEFORE_2020:
            raise DataError(
                f"{path} is in the format of torch.save before PyTorch 1.6, which is not read here;"
                " if you trust who wrote it, load it with PyTorch and save it again:"
                " torch.save(torch.load(FILE, weights_only=False), FILE)"
            )
        try:
            self._parts = zipfile.ZipFile(_Window(file, offset, length)).infolist()  # type: ignore[arg-type]
        except Exception as error:  # a damaged directory can fail in any way
            raise DataError(f"{path} is not a file of torch.save, or is damaged: {error}") from None
        self._ranges: dict[str, tuple[int, int]] = {}
        end = 0
        for part in sorted(self._parts, key=lambda part: part.header_offset):
            if part.filename in self._ranges or part.header_offset < end:
                raise self._damaged(
                    f"its part {part.filename[:80]!r} occurs twice, or shares bytes with another"
                )
            begin = self._begin(part)
            end = begin + part.file_size
            self._ranges[part.filename] = (begin, part.file_size)
        if end > length:
            raise self._damaged("its parts reach beyond its end")
        pickles = [name for name in self._ranges if name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise self._damaged("it has no data.pkl, or several")
        self._folder = pickles[0].removesuffix("data.pkl")

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self.path} is not a file of torch.save, or is damaged: {reason}")

    def _begin(self, part: zipfile.ZipInfo) -> int:
        """Return the first byte of a part.

        Its local header repeats the name and may have another extra field.
        """
        if part.compress_type or part.flag_bits & 1 or part.compress_size != part.file_size:
            raise self._damaged(f"its part {part.filename[:80]!r} is compressed or encrypted")
        self._file.seek(self._offset + part.header_offset)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise self._damaged(f"its part {part.filename[:80]!r} is missing")
        name_size = int.from_bytes(header[26:28], "little")
        extra = int.from_bytes(header[28:30], "little")
        if self._file.read(name_size) != part.orig_filename.encode(
            "utf-8" if part.flag_bits & 0x800 else "cp437", "replace"
        ):
            raise self._damaged(f"its part {part.filename[:80]!r} has two names")
        return part.header_offset + 30 + name_size + extra

    def pickle(self) -> bytes:
        """Return the pickle.

        ZipFile.read would require a checksum, which torch.save may leave out.
        """
        begin, size = self._ranges[f"{self._folder}data.pkl"]
        if size > _MAX_PICKLE_BYTES:
            raise self._damaged(f"a pickle of {size:,} bytes")
        self._file.seek(self._offset + begin)
        return self._file.read(size)

    def storage(self, key: str, size: int) -> tuple[Path, int]:
        """Return the file of a storage and the offset of its first byte.

        Raises:
            DataError: it is missing, or has fewer bytes than `size`.
        """
        begin, stored = self._ranges.get(f"{self._folder}data/{key}", (0, -1))
        if stored < size:
            raise self._damaged(
                f"its part {key[:80]!r} is missing, or has fewer than {size:,} bytes"
            )
        return self.path, self._offset + begin


class _Window:
    """A part of an open file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self.file = file
        self.start = start
        self.length = length
        self.position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as in a file."""
        self.position = max((0, self.position, self.length)[whence] + offset, 0)
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        rest = max(self.length - self.position, 0)
        if (rest if size is None or size < 0 else min(size, rest)) > _MAX_READ_BYTES:
            raise ValueError("its directory is too large")
        self.file.seek(self.start + self.position)
        data = self.file.read(rest if size is None or size < 0 else min(size, rest))
        self.position += len(data)
        return data

    def seekable(self) -> bool:
        """Return True."""
        return True
