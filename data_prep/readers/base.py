"""What all readers of raw sources share: opening and unpacking, limits, and the quarantine of bad records."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, ClassVar, cast

from datatrove.data import Document
from datatrove.io import DataFolderLike
from datatrove.pipeline.readers.base import BaseDiskReader

from data_prep.readers.language import medline_code
from data_prep.readers.options import ReaderOptions
from galen.errors import DataError

_PACKINGS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".zst": "Zstandard", ".xz": "xz"}
_SAMPLE_BYTES = 200
NOTED = "noted_"
"""How the names of statistics begin that the command tells at its end, besides what was dropped."""



@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record, or the rest of a file, that could not be read."""

    file: str
    position: str
    """Where in the file, in words: "line 12, byte 4096", "member a/b.nxml"."""
    reason: str
    """Kind of the mistake, for counting."""
    detail: str
    sample: str = ""
    """How it begins."""


class SourceReader(BaseDiskReader):
    """Base of the readers of raw sources: a subclass has `name`, `endings` and `read_file`.

    Every record is counted as `total`; one that gives no document also as `dropped_<reason>`. A bad record is handed to `quarantine`
    and reading goes on; a file that cannot be read further ends with a `DataError`.

    Args:
        folder: local folder or fsspec address that holds the files.
        options: of the source in the recipe.
    """

    endings: ClassVar[tuple[str, ...]]
    many_per_task: ClassVar[bool] = False
    """Whether a file is typically one document, so that a task should read many."""

    def __init__(self, folder: DataFolderLike, options: ReaderOptions | None = None) -> None:
        super().__init__(folder, add_file_path=False)
        self.options = options or ReaderOptions()
        self.raw: BinaryIO | None = None
        self.on_bad: Callable[[BadRecord], None] = lambda bad: None

    @contextlib.contextmanager
    def open(self, filepath: str) -> Iterator[BinaryIO]:
        """Yield a file unpacked as its ending says; `raw` then tells how far it is read.

        Raises:
            DataError: the packed data is damaged or breaks off.
        """
        with self.data_folder.open(filepath, "rb") as raw:
            self.raw = raw
            try:
                yield _unpacked(raw, filepath)
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                packing = _PACKINGS.get(PurePath(filepath).suffix)
                if packing is None or (isinstance(error, OSError) and error.errno is not None):
                    raise  # not damage, of which gzip, bzip2 and Zstandard tell by an OSError without a number
                raise DataError(f"{self.path_of(filepath)} is not whole {packing} data ({error}); fetch it again") from None

    def path_of(self, filepath: str) -> str:
        """Return the full path or address of a file of the folder, for messages."""
        return str(self.data_folder.resolve_paths(filepath))

    def quarantine(self, filepath: str, position: str, reason: str, detail: str, sample: bytes | str = b"") -> None:
        """Count a bad record and report it."""
        self.stat_update("total", f"dropped_quarantined, {reason}")
        text = sample[:_SAMPLE_BYTES]
        text = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
        self.on_bad(BadRecord(self.path_of(filepath), position, reason, detail, text))

    def document(self, text: str, identifier: str, filepath: str, /, **known: Any) -> Document:
        """Return a document with the metadata that filters rely on; what is not known gets an empty value or the source's default."""
        metadata = {
            "title": "",
            "language": [],
            "publication_types": [],
            "date": None,
            "copyright": "",
            "licence": "",
            "retracted": False,
            "source": PurePath(filepath).name,
        } | known
        languages = metadata["language"] or ([self.options.language] if self.options.language else [])
        metadata["language"] = [medline_code(language) for language in languages if language]
        metadata["licence"] = metadata["licence"] or self.options.licence
        return Document(text=text, id=identifier, metadata=metadata)

    def read_whole(self, filepath: str) -> bytes | None:
        """Return a file's content, or None when it is longer than a record may be and therefore quarantined."""
        with self.open(filepath) as stream:
            return self.read_record(stream, filepath, "whole file")

    def read_record(self, stream: BinaryIO, filepath: str, position: str) -> bytes | None:
        """Return what a stream holds, one record; None when it is longer than a record may be and therefore quarantined."""
        limit = self.options.max_record_bytes
        data = stream.read(limit + 1)
        if len(data) <= limit:
            return data
        self.quarantine(filepath, position, "too long", f"longer than {limit:,} bytes (max_record_bytes)", data)
        return None

    def content_id(self, filepath: str, content: str | bytes) -> str:
        """Return an identifier for a document that has none: its file's name and a hash of its content, the same on every machine."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        return f"{PurePath(filepath).name}:{hashlib.blake2b(data, digest_size=8).hexdigest()}"

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one file."""
        raise NotImplementedError


def _unpacked(raw: BinaryIO, filepath: str) -> BinaryIO:
    """Return the stream that a file's ending says: gzip, bzip2, xz, Zstandard, or as it is. Reading never needs to go back."""
    ending = PurePath(filepath).suffix
    if ending in (".gz", ".tgz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if ending == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if ending == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if ending == ".zst":
        import pyarrow  # zstandard's own reader takes a file that breaks off for one that ends

        return cast(BinaryIO, io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")))
    return raw


class BoundedStream:
    """A stream for `lxml.etree.iterparse` that stops when more than `limit` bytes pass without `mark` being called.

    A record that never ends would otherwise be built in memory whole.
    """

    def __init__(self, stream: BinaryIO, limit: int, path: str) -> None:
        self.stream, self.limit, self.path, self.passed = stream, limit, path, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            DataError: the present record is too long.
        """
        data = self.stream.read(size)
        self.passed += len(data)
        if self.passed > self.limit:
            raise DataError(f"{self.path}: a record is longer than {self.limit:,} bytes (max_record_bytes)")
        return data

    def mark(self) -> None:
        """Begin a new record."""
        self.passed = 0


@dataclass(slots=True)
class Line:
    """One line of a file."""

    number: int
    offset: int
    data: bytes | None
    """None for a line that is longer than the limit."""
    length: int
    """Bytes, those of the line's end included."""

    @property
    def position(self) -> str:
        """Where it stands, in words."""
        return f"line {self.number}, byte {self.offset}"


def bounded_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """Yield the lines of a stream, from number 1; of one longer than `limit` bytes only the length, in constant memory."""
    number = offset = 0
    while data := stream.readline(limit + 1):
        number, length = number + 1, len(data)
        too_long = length > limit and not data.endswith(b"\n")
        while too_long and not data.endswith(b"\n") and (data := stream.readline(2**20)):
            length += len(data)
        yield Line(number, offset, None if too_long else data, length)
        offset += length
