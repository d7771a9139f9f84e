"""Common base of all readers of raw sources.

Opening and decompressing, limits, and the quarantine of bad records.
"""

import contextlib
import datetime
import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO, ClassVar, TypeVar

import orjson
from datatrove.data import Document
from datatrove.io import DataFolderLike
from datatrove.pipeline.readers.base import BaseDiskReader

from data_prep.files.decompress import CorruptDataError, format_of, open_decompressed
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.record import (
    MEMORY_LIMIT,
    START,
    Outcome,
    QuarantinedRecord,
    Record,
    RecordIndex,
    RecordRejectedError,
    Rejection,
    Watch,
    is_of_system,
    printable,
)
from data_prep.readers.remote import open_raw
from data_prep.readers.xml_tree import TOO_DEEP
from data_prep.text.language_codes import medline_code
from galen.errors import DataError, one_line

WARNING = "warning_"
"""Prefix of the statistics that the command reports at its end, besides dropped records."""

SAMPLE_BYTES = 200
Reader = TypeVar("Reader", bound="SourceReader")


class SourceReader(BaseDiskReader):
    """Base of the readers of raw sources.

    A subclass has `name`, `endings`, `records` and `parse`, and `parts` if a record holds several.

    `records` goes through a file and `parse` makes documents of one record. Whatever goes wrong in
    `parse`, the record is put into quarantine and reading continues; when `records` fails, the file
    cannot be read further. Every record is counted as `total`; one that gives no document also as
    `dropped_<reason>`.

    Args:
        folder: local folder or fsspec address that holds the files.
        options: of the source in the recipe, an instance of `Options`.
    """

    Options: ClassVar[type[ReaderOptions]] = ReaderOptions
    """Class of the options of a source with this reader."""
    endings: ClassVar[tuple[str, ...]]
    many_per_task: ClassVar[bool] = False
    """Whether a file is typically one document, so that a task should read many."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Libraries that the reader imports only when it reads.

    They are imported before a process is forked for it, lest each task's process does it again.
    """

    def __init__(self, folder: DataFolderLike, options: ReaderOptions | None = None) -> None:
        super().__init__(folder, add_file_path=False)
        self.options = options or self.Options()
        self.raw: BinaryIO | None = None
        self.on_bad: Callable[[QuarantinedRecord], None] = lambda bad: None
        self.watch = Watch()
        self._outcome = Outcome(START)

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the records of one file.

        Raises:
            DataError: it cannot be read further.
        """
        raise NotImplementedError

    def parts(self, record: Record, filepath: str) -> Iterable[Record]:
        """Yield the parts of a record that are parsed separately: as a rule, it alone."""
        return (record,)

    def parse(self, record: Record, filepath: str) -> Iterable[Document]:
        """Return the documents of one part of a record. Any exception puts it into quarantine."""
        raise NotImplementedError

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one file, read in this process.

        Raises:
            DataError: it cannot be read further.
        """
        for outcome in self.outcomes(filepath):
            for label, count in outcome.counts.items():
                super().stat_update(label, value=count)
            for bad in outcome.bad:
                self.on_bad(bad)
            yield from outcome.documents()

    def outcomes(self, filepath: str, start: RecordIndex = START) -> Iterator[Outcome]:
        """Yield the outcomes of the records of one file, from the one at `start` on.

        Raises:
            DataError: it cannot be read further.
        """
        self.watch.before_search(START)
        try:
            for number, record in enumerate(self.records(filepath)):
                if number >= start.record:
                    yield from self._outcomes_of(
                        record, filepath, number, start.part if number == start.record else 0
                    )
                self.watch.before_search(RecordIndex(number + 1))
        except DataError:
            raise
        except Exception as error:
            if is_of_system(error):
                raise
            detail = self._rejection_of(error).detail
            raise DataError(
                f"{printable(self.path_of(filepath))} cannot be read further: {detail}"
            ) from None

    def _outcomes_of(
        self, record: Record, filepath: str, number: int, first: int
    ) -> Iterator[Outcome]:
        """Yield the outcomes of the parts of one record, from the `first` on."""
        index = RecordIndex(number)
        try:
            for part in self._parts_of(record, filepath, number):
                if index.part >= first:
                    yield self._parsed(part, filepath, index)
                index = RecordIndex(number, index.part + 1)
        except DataError:
            raise
        except Exception as error:
            if is_of_system(error):
                raise
            if index.part >= first:
                yield self._rejected(record, filepath, index, error)

    def _parts_of(self, record: Record, filepath: str, number: int) -> Iterator[Record]:
        if record.rejection is not None:
            raise RecordRejectedError(*record.rejection)
        if record.warnings:
            yield record
            return
        parts = iter(self.parts(record, filepath))
        for index in map(RecordIndex, itertools.repeat(number), itertools.count()):
            if (rejection := self.watch.skip_split.get(index)) is not None:
                raise RecordRejectedError(*rejection)
            self.watch.before_split(index)
            if (part := next(parts, None)) is None:
                return
            yield part

    def _parsed(self, part: Record, filepath: str, index: RecordIndex) -> Outcome:
        """Return the outcome of one part.

        Only here a record is parsed, and any error in it is caught.
        """
        self._outcome = Outcome(index)
        for warning, count in part.warnings.items():
            self.stat_update(f"{WARNING}{warning}", value=count)
        if part.warnings:
            return self._outcome
        try:
            if (rejection := part.rejection or self.watch.skip_parse.get(index)) is not None:
                raise RecordRejectedError(*rejection)
            self.watch.before_parse(index)
            self._outcome.data = self._encoded(self.parse(part, filepath))
            self.watch.after_parse()
        except DataError:
            raise
        except Exception as error:
            if is_of_system(error):
                raise
            return self._rejected(part, filepath, index, error)
        return self._outcome

    def _encoded(self, documents: Iterable[Document]) -> bytes:
        """Return documents as JSON.

        Raises:
            RecordRejectedError: they hold something that a corpus cannot: lone surrogates, binary
                fields, huge integers, a text too long.
        """
        rows = [[document.text, document.id, document.metadata] for document in documents]
        for text, _, _ in rows:
            if len(text) > self.options.max_record_bytes:
                raise RecordRejectedError(
                    "too long",
                    f"{len(text):,} characters, the limit is {self.options.max_record_bytes:,}"
                    " (max_record_bytes)",
                )
        try:
            return orjson.dumps(rows, default=_time)
        except TypeError as error:
            raise RecordRejectedError("invalid structure", str(error)) from None

    def _rejected(
        self, record: Record, filepath: str, index: RecordIndex, error: Exception
    ) -> Outcome:
        """Return the outcome of an unreadable record; its earlier counts are discarded."""
        self._outcome = Outcome(index)
        self.quarantine(filepath, record.position, *self._rejection_of(error), record.sample)
        return self._outcome

    def _rejection_of(self, error: Exception) -> Rejection:
        if isinstance(error, RecordRejectedError):
            return error.rejection
        if isinstance(error, RecursionError):
            return Rejection(*TOO_DEEP)
        if isinstance(error, MemoryError):
            return Rejection(
                MEMORY_LIMIT,
                f"took more than {self.options.max_record_memory:,} bytes of memory"
                " (max_record_memory)",
            )
        return Rejection("unreadable", f"{type(error).__name__}: {one_line(error)}")

    def helper(self, reader_class: "type[Reader]") -> "Reader":
        """Return a reader of another format for a part of the current record.

        Its counts and reports are those of this reader.
        """
        reader = reader_class(self.data_folder, self.options)
        reader.watch = self.watch
        reader._outcome = self._outcome
        return reader

    def stat_update(self, *labels: str, value: int = 1, unit: str | None = None) -> None:
        """Count something of the current record."""
        for label in labels:
            self._outcome.counts[printable(label)] += value

    @contextlib.contextmanager
    def open(self, filepath: str) -> Iterator[BinaryIO]:
        """Yield a file's content, decompressed by its suffix; `raw` then has the position.

        Raises:
            DataError: the compressed data is damaged or breaks off.
        """
        with open_raw(self.data_folder, filepath) as raw:
            self.raw = raw
            try:
                yield open_decompressed(raw, filepath)
            except CorruptDataError as error:
                raise DataError(
                    f"{self.path_of(filepath)} is not complete {format_of(filepath)} data"
                    f" ({error}); fetch it again"
                ) from None

    def path_of(self, filepath: str) -> str:
        """Return the full path or address of a file of the folder, for messages."""
        return printable(str(self.data_folder.resolve_paths(filepath)))

    def quarantine(
        self, filepath: str, position: str, reason: str, detail: str, sample: bytes | str = b""
    ) -> None:
        """Count a bad record and report it."""
        self.stat_update("total", f"dropped_quarantined, {reason}")
        self.report(filepath, position, reason, detail, sample)

    def report(
        self, filepath: str, position: str, reason: str, detail: str, sample: bytes | str = b""
    ) -> None:
        """Report a defect of a record, without counting it as bad."""
        text = sample[:SAMPLE_BYTES]
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        self._outcome.bad.append(
            QuarantinedRecord(
                self.path_of(filepath), *map(printable, (position, reason, detail, text))
            )
        )

    def document(self, text: str, document_id: str, filepath: str, /, **known: Any) -> Document:
        """Return a document with the metadata that filters rely on.

        What is not known gets an empty value or the source's default.
        """
        metadata = {
            "title": "",
            "language": [],
            "publication_types": [],
            "date": None,
            "copyright": "",
            "license": "",
            "retracted": False,
            "source": printable(PurePath(filepath).name),
        } | known
        languages = metadata["language"] or [self.options.language]
        metadata["language"] = [medline_code(language) for language in languages if language]
        metadata["license"] = metadata["license"] or self.options.license
        return Document(text=text, id=document_id, metadata=metadata)

    def file_record(self, filepath: str) -> Iterator[Record]:
        """Yield a file's content as its one record."""
        with self.open(filepath) as stream:
            record = self.record_of(stream, "file")
        yield record

    def record_of(self, stream: BinaryIO, position: str) -> Record:
        """Return what a stream holds as one record.

        When it is longer than a record may be, only that.
        """
        limit = self.options.max_record_bytes
        data = stream.read(limit + 1)
        if len(data) <= limit:
            return Record(position, data, data[:SAMPLE_BYTES])
        return Record(
            position,
            None,
            data[:SAMPLE_BYTES],
            Rejection("too long", f"longer than {limit:,} bytes (max_record_bytes)"),
        )

    def member(self, stream: BinaryIO, name: str) -> Record:
        """Return a member of an archive as one record, decompressed by its suffix.

        One that is damaged, or longer than a record may be, is refused.
        """
        record = self.record_of(stream, f"member {name}")
        compression = format_of(name)
        if compression is None or record.rejection is not None:
            return record
        try:
            return self.record_of(
                open_decompressed(io.BytesIO(record.content), name), record.position
            )
        except CorruptDataError as error:
            record.rejection = Rejection(
                "damaged", f"not complete {compression} data ({one_line(error)})"
            )
            return record

    def content_id(self, filepath: str, content: str | bytes) -> str:
        """Return an id for a document that has none.

        Its file's name and a hash of its content, the same on every machine.
        """
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        return f"{printable(PurePath(filepath).name)}:{digest}"


def _time(value: Any) -> str | None:
    """Return pandas' times, nanoseconds in Parquet, as the corpus writer takes them."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat() if value == value else None  # pandas' NaT is not equal to itself
    raise TypeError(f"a corpus cannot hold {type(value).__name__}")
