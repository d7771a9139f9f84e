"""Plain text files, a document each: single, packed, or as members of a ZIP archive, as MMedC is published on the Hugging Face hub."""

import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from datatrove.data import Document

from data_prep.readers.base import SourceReader
from galen.errors import DataError

_TEXTS = (".txt", ".txt.gz", ".txt.bz2", ".txt.xz", ".txt.zst")


class TextReader(SourceReader):
    """Yields one document per text file or `.txt` member; the id is its path in the archive, if any, and the file's name with a hash.

    What is not UTF-8 is quarantined. Metadata besides what all readers give: member.

    Raises:
        DataError: a broken archive.
    """

    name = "text"
    endings = (*_TEXTS, ".zip")
    many_per_task = True

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one file or archive."""
        if filepath.endswith(".zip"):
            yield from self._members(filepath)
        elif (data := self.read_whole(filepath)) is not None:
            yield from self._text(data, filepath, "")

    def _members(self, filepath: str) -> Iterator[Document]:
        with self.data_folder.open(filepath, "rb") as raw:
            self.raw = raw
            try:
                with zipfile.ZipFile(raw) as archive:
                    for member in archive.infolist():
                        if member.is_dir() or not member.filename.endswith(".txt") or member.filename.startswith("__MACOSX/"):
                            continue
                        with archive.open(member) as file:
                            data = self.read_record(cast(BinaryIO, file), filepath, f"member {member.filename}")
                        if data is not None:
                            yield from self._text(data, filepath, member.filename)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted or packed in an unknown way
                raise DataError(f"{self.path_of(filepath)} is not a whole ZIP archive ({error}); fetch it again") from None

    def _text(self, data: bytes, filepath: str, member: str) -> Iterator[Document]:
        try:
            text = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            position = f"member {member}" if member else "whole file"
            self.quarantine(filepath, position, "not UTF-8", f"not UTF-8 text (byte {error.start + 1})", data)
            return
        self.stat_update("total")
        if not text:
            self.stat_update("dropped_no text")
            return
        name = self.content_id(filepath, text)
        yield self.document(text, f"{member}@{name}" if member else name, filepath, member=member)
