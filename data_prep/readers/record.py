"""One record on its way through a reader.

Its position in a file, its outcome, and why it could not be read.
"""

import errno
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from datatrove.data import Document


class RecordIndex(NamedTuple):
    """Which record of a file, from 0, and which part of it (an article of a set of articles)."""

    record: int = 0
    part: int = 0


class Rejection(NamedTuple):
    """Why a record goes into quarantine."""

    reason: str
    """Category of the error, for counting."""
    detail: str


START = RecordIndex()
MEMORY_LIMIT = "memory limit"


class RecordRejectedError(Exception):
    """A record goes into quarantine.

    Holds the category of the error, for counting, and a message.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A record, or the rest of a file, that could not be read."""

    file: str
    position: str
    """Where in the file, in words: "line 12, byte 4096", "member a/b.nxml"."""
    reason: str
    """Category of the error, for counting."""
    detail: str
    sample: str = ""
    """Its beginning."""


@dataclass(slots=True)
class Record:
    """A record of a file, not parsed yet."""

    position: str
    """Where in the file, in words."""
    content: Any = None
    """Input of the reader's `parse`."""
    sample: bytes | str = b""
    """Its beginning."""
    rejection: Rejection | None = None
    """It is put into quarantine without being parsed."""
    warnings: Mapping[str, int] = field(default_factory=dict)
    """No record, but counts to report about the file, such as archive members that are not read."""


@dataclass(slots=True)
class Outcome:
    """Result of one record, or of one part of it."""

    index: RecordIndex
    data: bytes = b"[]"
    """The documents as a JSON list of [text, id, metadata], which is what a corpus can hold."""
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[QuarantinedRecord] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Yield the documents."""
        return documents_of(orjson.loads(self.data))


def documents_of(rows: list[list[Any]]) -> Iterator[Document]:
    """Yield documents from lists of text, id and metadata."""
    return (
        Document(text=text, id=document_id, metadata=metadata)
        for text, document_id, metadata in rows
    )


class Watch:
    """Is notified of a reader's next action.

    Does nothing here; in a reader's process it enforces limits.
    """

    skip_split: Mapping[RecordIndex, Rejection] = {}
    """Records that must not be divided into parts again, from that part on."""

    skip_parse: Mapping[RecordIndex, Rejection] = {}
    """Parts that must not be parsed again."""

    def before_search(self, index: RecordIndex) -> None:
        """The file is about to be read up to the beginning of a record."""

    def before_split(self, index: RecordIndex) -> None:
        """A record is about to be split into parts, up to the beginning of one."""

    def before_parse(self, index: RecordIndex) -> None:
        """A part is about to be parsed."""

    def after_parse(self) -> None:
        """A part is parsed.

        Raises:
            MemoryError: parsing took too much memory, which a library may not have reported.
        """

    def restart_timer(self) -> None:
        """Restart the time limit: a part that is expected to take long has progressed."""


def printable(text: str) -> str:
    """Return text with lone surrogates (of file names that are not UTF-8) escaped for storage."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_of_system(error: Exception) -> bool:
    """Return whether an error is the system's, not the file's.

    The file is gone, or a disk or a network fails.
    """
    if isinstance(error, FileNotFoundError | PermissionError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
