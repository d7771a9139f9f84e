"""Records as on the Hugging Face hub: JSONL (plain or packed) and Parquet, one document each (CulturaX, RedPajama, MMedC, …)."""

import datetime
import json
from collections.abc import Iterator
from typing import Any

import orjson
from datatrove.data import Document

from data_prep.readers.base import SourceReader, bounded_lines
from data_prep.readers.licence import licence_name
from data_prep.records import Unusable, load_line, rows
from galen.errors import DataError

_JSON = tuple(f"{kind}{packed}" for kind in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst", ".bz2", ".xz"))
_ROWS = 256


class JsonReader(SourceReader):
    """Base of readers of JSON lines: a subclass turns one record into a document or names why not."""

    endings = (*_JSON, ".gz")

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one file."""
        limit = self.options.max_record_bytes
        with self.open(filepath) as stream:
            for line in bounded_lines(stream, limit):
                if line.data is None:
                    detail = f"{line.length:,} bytes, the limit is {limit:,} (max_record_bytes)"
                    self.quarantine(filepath, line.position, "too long", detail)
                elif line.data.strip():
                    yield from self._line(line.data, filepath, line.position)

    def _line(self, data: bytes, filepath: str, position: str) -> Iterator[Document]:
        try:
            record = load_line(data)
        except Unusable as error:
            self.quarantine(filepath, position, error.reason, error.detail, data)
            return
        yield from self.checked(record, filepath, position, data)

    def checked(self, record: Any, filepath: str, position: str, sample: bytes = b"") -> Iterator[Document]:
        """Yield the document of a record, or quarantine it."""
        if not isinstance(record, dict):
            self.quarantine(filepath, position, "wrong form", f"each record must be an object, this is a {type(record).__name__}", sample)
            return
        try:
            document = self.from_record(record, filepath)
            if document is not None:  # a TypeError for what a corpus cannot hold: lone surrogates, binary fields, huge integers
                orjson.dumps([document.text, document.id, document.metadata], default=_time)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            detail = f"no key {error}" if isinstance(error, KeyError) else str(error)
            self.quarantine(filepath, position, "wrong form", f"{detail} (keys: {', '.join(record)})", sample)
            return
        self.stat_update("total")
        if document is None:
            self.stat_update("dropped_no text")
        else:
            yield document

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record; None when it holds no text. A `KeyError` or `ValueError` says that its form is wrong."""
        raise NotImplementedError


class RecordsReader(JsonReader):
    """Yields a document per record: `text_key`, `id_key` (else a hash of the text); all other fields go into the metadata."""

    name = "records"
    endings = (*_JSON, ".parquet")

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one file."""
        if not filepath.endswith(".parquet"):
            yield from super().read_file(filepath)
            return
        import pyarrow
        import pyarrow.parquet

        path = self.path_of(filepath)
        with self.data_folder.open(filepath, "rb") as raw:
            self.raw = raw
            try:
                number = 0
                for batch in pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=_ROWS):
                    for _, row in rows(batch, batch.schema.names):
                        number += 1
                        yield from self.checked(row, filepath, f"row {number}")
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{path} is not whole Parquet data ({error}); fetch it again") from None

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record."""
        text = record.pop(self.options.text_key)
        if isinstance(text, bytes):
            text = text.decode()
        if not isinstance(text, str):
            raise ValueError(f"{self.options.text_key!r} is {type(text).__name__}, not text")
        if not text.strip():
            return None
        if len(text) > self.options.max_record_bytes:  # a row of Parquet, whose length shows only here
            raise ValueError(f"{len(text):,} characters, the limit is {self.options.max_record_bytes:,} (max_record_bytes)")
        identifier = record.pop(self.options.id_key, None) if self.options.id_key else None
        inner = _object(record.pop("metadata", None) or record.pop("meta", None))
        # `source` becomes `origin`; `copies` is the mixture's word for how often it takes a document
        known = {key: value for key, value in {**record, **inner}.items() if key not in ("source", "copies")}
        if source := record.get("source") or inner.get("source"):
            known["origin"] = source
        for key in ("language", "publication_types"):
            if key in known and not isinstance(known[key], list):
                known[key] = [str(known[key])] if known[key] else []
        known["licence"] = licence_name(_text(known.pop("licence", None)), _text(known.pop("license", None)))
        for key in ("title", "copyright"):
            known[key] = _text(known.get(key)) or ""
        known["retracted"] = bool(known.get("retracted"))
        return self.document(text, str(identifier) if identifier not in (None, "") else self.content_id(filepath, text), filepath, **known)


def _time(value: Any) -> str:
    """Return pandas' times, which are nanoseconds in Parquet, as the writer of the corpus takes them."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"metadata": value}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
