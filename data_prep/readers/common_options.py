"""Options that every reader of raw sources has."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class ReaderOptions:
    """Options of all readers; a reader with more has a subclass in its own file."""

    language: str | None = None
    """Language of documents that state none, as two or three letters."""

    license: str = ""
    """License of documents that state none, for example CC-BY-4.0."""

    max_record_bytes: int = Field(default=64 * 2**20, ge=1024)
    """A record (line, article, page) longer than this is quarantined."""

    max_record_seconds: float = Field(default=60, gt=0, le=86400)
    """Processor time for a record: one that takes longer is ended and quarantined.

    OCR has this much for each page.
    """

    max_record_memory: int = Field(default=2 * 2**30, ge=64 * 2**20)
    """Memory for a record in bytes, besides what the process had before.

    One that takes more is ended and quarantined.
    """
