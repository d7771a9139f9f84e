"""Plain text files, a document each.

Single, compressed, or as members of a ZIP archive, as MMedC is published on the Hugging Face hub.
"""

import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from datatrove.data import Document

from data_prep.readers.base import SourceReader
from data_prep.readers.record import Record, RecordRejectedError, Rejection, printable
from data_prep.readers.remote import open_raw
from data_prep.readers.unread_members import UnreadMembers
from galen.errors import DataError

_OVERLAP = Rejection("overlapping members", "the members of the archive overlap, as in a ZIP bomb")
_INVALID_OFFSET = Rejection(
    "invalid offset", "the archive's directory names an offset without a member"
)
_HEADER_BYTES = 30
_MAGIC = b"PK\3\4"
_TEXTS = (".txt", ".txt.gz", ".txt.bz2", ".txt.xz", ".txt.zst")


class TextReader(SourceReader):
    """Yields one document per text file or such member of a ZIP archive.

    Its other members, archives among them, are counted.

    The id is its path in the archive, if any, and the file's name with a hash.

    What is not UTF-8 is quarantined. Metadata besides what all readers give: member.

    Raises:
        DataError: a broken archive.
    """

    name = "text"
    endings = (*_TEXTS, ".zip")
    many_per_task = True

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file, or the members of an archive, still compressed."""
        if not filepath.lower().endswith(".zip"):
            yield from self.file_record(filepath)
            return
        with open_raw(self.data_folder, filepath, seekable=True) as raw:
            self.raw = raw
            unread = UnreadMembers()
            try:
                with zipfile.ZipFile(raw) as archive:
                    wrong = _wrong(archive.infolist(), raw)
                    for number, member in enumerate(archive.infolist()):
                        name = member.filename
                        if name.lower().endswith(_TEXTS) and not name.startswith("__MACOSX/"):
                            yield Record(
                                f"member {name}", (archive, member), rejection=wrong.get(number)
                            )
                        elif not member.is_dir():
                            unread.add(name)
            except zipfile.BadZipFile as error:
                raise DataError(
                    f"{self.path_of(filepath)} is not a complete ZIP archive ({error}); fetch it"
                    " again"
                ) from None
            yield from unread.records()

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a file or member."""
        member = ""
        if isinstance(record.content, tuple):
            archive, info = record.content
            member = printable(info.filename)
            with archive.open(info) as file:
                body = self.member(cast(BinaryIO, file), info.filename)
            if body.rejection is not None:
                raise RecordRejectedError(*body.rejection)
            record.content = body.content
            record.sample = body.sample
        try:
            text = record.content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise RecordRejectedError(
                "not UTF-8", f"not UTF-8 text (byte {error.start + 1})"
            ) from None
        self.stat_update("total")
        if not text:
            self.stat_update("dropped_no text")
            return
        name = self.content_id(filepath, text)
        yield self.document(text, f"{member}@{name}" if member else name, filepath, member=member)


def _wrong(members: Sequence[zipfile.ZipInfo], raw: BinaryIO) -> dict[int, Rejection]:
    """Return which members have wrong or overlapping offsets, and why they are refused.

    Such a member does not begin where the archive says, or begins before the data of an earlier one
    ends. An archive of some kilobytes could otherwise hold the same gigabytes hundreds of times.
    """
    wrong: dict[int, Rejection] = {}
    end = 0
    for number, member in sorted(enumerate(members), key=lambda pair: pair[1].header_offset):
        if not _begins(member.header_offset, raw):
            wrong[number] = _INVALID_OFFSET
        elif member.header_offset < end:
            wrong[number] = _OVERLAP
        else:
            end = (
                member.header_offset
                + _HEADER_BYTES
                + len(member.orig_filename)
                + member.compress_size
            )
    return wrong


def _begins(offset: int, raw: BinaryIO) -> bool:
    if offset < 0:
        return False
    raw.seek(offset)
    return raw.read(len(_MAGIC)) == _MAGIC
