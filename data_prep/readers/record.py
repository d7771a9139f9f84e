"""One record on its way through a reader.

How it is found in a file, its outcome, and why it could not be read.
"""

import errno
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from datatrove.data import Document


class Place(NamedTuple):
    """Which record of a file, from 0, and which part of it (an article of a set of articles)."""

    record: int = 0
    part: int = 0


class Why(NamedTuple):
    """Why a record goes into quarantine."""

    reason: str
    """Kind of the mistake, for counting."""
    detail: str


START = Place()
TOO_MUCH_MEMORY = "too much memory"


class Refused(Exception):
    """A record goes into quarantine.

    Holds the kind of the error, for counting, and a message.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.why = Why(reason, detail)


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A record, or the rest of a file, that could not be read."""

    file: str
    position: str
    """Where in the file, in words: "line 12, byte 4096", "member a/b.nxml"."""
    reason: str
    """Kind of the mistake, for counting."""
    detail: str
    sample: str = ""
    """How it begins."""


@dataclass(slots=True)
class Record:
    """A record as it is found in a file, not parsed yet."""

    position: str
    """Where in the file, in words."""
    content: Any = None
    """What the reader parses."""
    sample: bytes | str = b""
    """How it begins."""
    refused: Why | None = None
    """It is put into quarantine without being parsed."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Stands for no record: what is counted and told of the file instead, as of archives' members
    that are not read."""


@dataclass(slots=True)
class Outcome:
    """What came of one record, or of one part of it."""

    place: Place
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
        Document(text=text, id=identifier, metadata=metadata) for text, identifier, metadata in rows
    )


class Watch:
    """Is notified of a reader's next action.

    Does nothing here; in a reader's process it enforces limits.
    """

    unsplit: Mapping[Place, Why] = {}
    """Records that must not be divided into parts again, from that part on."""

    unparsed: Mapping[Place, Why] = {}
    """Parts that must not be parsed again."""

    def looks(self, place: Place) -> None:
        """The file is read up to the beginning of a record."""

    def splits(self, place: Place) -> None:
        """A record is divided into its parts, up to the beginning of one."""

    def parses(self, place: Place) -> None:
        """A part is parsed."""

    def parsed(self) -> None:
        """A part is parsed.

        Raises:
            MemoryError: that took too much memory, which a library may have kept to itself.
        """

    def goes_on(self) -> None:
        """A part that takes long by its nature has come a step further: its time begins anew."""


def printable(text: str) -> str:
    """Return text with lone surrogates (of file names that are not UTF-8) escaped for storage."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_of_system(error: Exception) -> bool:
    """Say whether an error is the system's, not the file's.

    The file is gone, or a disk or a network fails.
    """
    if isinstance(error, FileNotFoundError | PermissionError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
