"""Records as on the Hugging Face hub.

JSONL (plain or compressed) and Parquet, one document each (CulturaX, RedPajama, MMedC, …).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.files.decompress import SUFFIXES
from data_prep.files.json_records import InvalidRecordError, load_line, rows
from data_prep.readers.base import SAMPLE_BYTES, WARNING, SourceReader
from data_prep.readers.bounded_streams import bounded_lines
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.license import license_name
from data_prep.readers.metadata import with_types
from data_prep.readers.record import Record, RecordRejectedError, Rejection
from data_prep.readers.remote import open_raw
from galen.errors import DataError, one_line
from galen.recipe import STRICT

_JSON = tuple(
    f"{extension}{suffix}"
    for extension in (".jsonl", ".ndjson", ".json")
    for suffix in ("", *SUFFIXES)
)
_ROWS = 256
_LONGEST_NAME = 60


METADATA_KEYS = (
    "title", "language", "publication_types", "date", "copyright", "licence", "license",
    "retracted", "source", "url", "pmid", "pmcid", "doi", "corpus_id", "corpusid", "mesh",
    "article_type", "journal", "citation_count", "full_text", "member",
)  # fmt: skip
"""What steps, the mixture and the report read, and where a document comes from."""


@dataclass(kw_only=True, config=STRICT)
class RecordsOptions(ReaderOptions):
    """Options of JSONL and Parquet records."""

    text_key: str = "text"
    """Key of the text."""

    id_key: str | None = "id"
    """Key of the id, which must be unique in the corpus.

    null, or a record without one: the file's name with a hash of the text.
    """

    metadata_keys: list[str] = Field(default_factory=lambda: list(METADATA_KEYS))
    """Keys that go into the metadata.

    Keys inside a record's `metadata` or `meta` count too; the others are left out and named at the
    end. ["*"] takes all: think of what a column may say of a person.
    """


class JsonReader(SourceReader):
    """Base of readers of JSON lines: a subclass makes a document of a record or says why not."""

    endings = (*_JSON, ".gz")

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the lines of one file."""
        limit = self.options.max_record_bytes
        with self.open(filepath) as stream:
            for line in bounded_lines(stream, limit):
                if line.data is None:
                    rejection = Rejection(
                        "too long",
                        f"{line.length:,} bytes, the limit is {limit:,} (max_record_bytes)",
                    )
                    yield Record(line.position, rejection=rejection)
                elif line.data.strip():
                    yield Record(line.position, line.data, line.data[:SAMPLE_BYTES])

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a line."""
        try:
            fields = load_line(record.content)
        except InvalidRecordError as error:
            raise RecordRejectedError(error.reason, error.detail) from None
        return self.checked(fields, filepath)

    def checked(self, record: Any, filepath: str) -> Iterator[Document]:
        """Yield the document of a record."""
        if not isinstance(record, dict):
            raise RecordRejectedError(
                "invalid structure",
                f"each record must be an object, this is a {type(record).__name__}",
            )
        keys = ", ".join(record)
        try:
            document = self.from_record(record, filepath)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            detail = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise RecordRejectedError("invalid structure", f"{detail} (keys: {keys})") from None
        self.stat_update("total")
        if document is None:
            self.stat_update("dropped_no text")
        else:
            yield document

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record; None when it holds no text.

        A `KeyError` or `ValueError` says that its structure is invalid.
        """
        raise NotImplementedError


class RecordsReader(JsonReader):
    """Yields a document per record: `text_key`, `id_key` (else a hash of the text).

    Of the other fields, those of `metadata_keys` are kept.
    """

    name = "records"
    Options = RecordsOptions
    options: RecordsOptions
    endings = (*_JSON, ".parquet")
    libraries = ("pyarrow.parquet",)

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the lines or rows of one file."""
        return (
            self._rows(filepath)
            if filepath.lower().endswith(".parquet")
            else super().records(filepath)
        )

    def _rows(self, filepath: str) -> Iterator[Record]:
        import pyarrow
        import pyarrow.parquet

        with open_raw(self.data_folder, filepath, seekable=True) as raw:
            self.raw = raw
            try:
                number = 0
                for batch in pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=_ROWS):
                    for row in _rows_of(batch):
                        number += 1
                        yield Record(f"row {number}", row)
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(
                    f"{self.path_of(filepath)} is not complete Parquet data ({one_line(error)});"
                    " fetch it again"
                ) from None

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a line or row."""
        if isinstance(record.content, bytes):
            return super().parse(record, filepath)
        return self.checked(
            record.content if isinstance(record.content, dict) else _single(record.content),
            filepath,
        )

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record."""
        text = record.pop(self.options.text_key)
        if isinstance(text, bytes):
            text = text.decode()
        if not isinstance(text, str):
            raise ValueError(f"{self.options.text_key!r} is {type(text).__name__}, not text")
        if not text.strip():
            return None
        # a row of Parquet, whose length shows only here
        if len(text) > self.options.max_record_bytes:
            raise ValueError(
                f"{len(text):,} characters, the limit is {self.options.max_record_bytes:,}"
                " (max_record_bytes)"
            )
        document_id = record.pop(self.options.id_key, None) if self.options.id_key else None
        inner = _object(record.pop("metadata", None) or record.pop("meta", None))
        # `source` becomes `origin`; `repeats` is the mixture's word for how often it takes a
        # document
        fields = self._allowed({**record, **inner})
        known = {key: value for key, value in fields.items() if key not in ("source", "repeats")}
        if source := fields.get("source") and (record.get("source") or inner.get("source")):
            known["origin"] = source
        known["license"] = license_name(
            _text(known.pop("licence", None)), _text(known.pop("license", None))
        )
        known = with_types(known)
        return self.document(
            text,
            str(document_id) if document_id not in (None, "") else self.content_id(filepath, text),
            filepath,
            **known,
        )

    def _allowed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that go into the metadata, and count the others."""
        allowed = self.options.metadata_keys
        if "*" in allowed:
            return fields
        for key in fields:
            if key not in allowed:
                self.stat_update(
                    f"{WARNING}records with the column {key[:_LONGEST_NAME]}, which is not stored"
                    " (options.metadata_keys)"
                )
        return {key: value for key, value in fields.items() if key in allowed}


def _rows_of(batch: Any) -> Iterable[Any]:
    """Yield the rows of an Arrow record batch.

    If one has no Python value, each row comes as a batch of its own.
    """
    try:
        return [row for _, row in rows(batch, batch.schema.names)]
    except Exception:
        return (batch.slice(number, 1) for number in range(batch.num_rows))


def _single(batch: Any) -> dict[str, Any]:
    return next(row for _, row in rows(batch, batch.schema.names))


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"metadata": value}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
