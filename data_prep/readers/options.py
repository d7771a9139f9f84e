"""How readers render structured documents and what they assume of records that do not say."""

from typing import Annotated, Literal

import cssselect
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT


def _check_selector(selector: str) -> str:
    try:
        cssselect.HTMLTranslator().css_to_xpath(selector or "*")
    except cssselect.SelectorError as error:
        raise ValueError(f"{selector!r} is no CSS selector: {error}") from None
    return selector


Selector = Annotated[str, AfterValidator(_check_selector)]
"""A CSS selector; may be empty."""


METADATA_KEYS = (
    "title", "language", "publication_types", "date", "copyright", "licence", "license",
    "retracted", "source", "url", "pmid", "pmcid", "doi", "corpus_id", "corpusid", "mesh",
    "article_type", "journal", "citation_count", "full_text", "member",
)  # fmt: skip
"""What steps, the mixture and the report read, and where a document comes from."""


@dataclass(kw_only=True, config=STRICT)
class ReaderOptions:
    """Options of readers; a reader ignores those that do not concern its format."""

    citations: Literal["bib_ref", "marker", "drop"] = "bib_ref"
    """How citations are written (jats, s2orc, tei).

    bib_ref: `[bib_ref]first 12 words of the title..., Name[/bib_ref]`; marker: as printed ("[12]");
    drop: left out with the brackets around them.
    """

    floats: Literal["tokens", "captions", "drop"] = "tokens"
    """How figures, tables and display formulas are written.

    tokens: captions in `[fig]`, `[table]` and formulas in `[formula]`, as in MEDITRON, and
    references to them in `[fig_ref]`; captions: the same as plain paragraphs; drop: left out
    (formulas stay, as plain text).
    """

    table_bodies: bool = False
    """Also write the cells of tables, as Markdown rows below the caption (jats, tei, html)."""

    text_key: str = "text"
    """Key of the text in JSONL and Parquet records (reader records)."""

    id_key: str | None = "id"
    """Key of the identifier in them, which must be unique in the whole corpus.

    null, or a record without one: the file's name with a hash of the text.
    """

    metadata_keys: list[str] = Field(default_factory=lambda: list(METADATA_KEYS))
    """Keys of JSONL and Parquet records (reader records) that go into the metadata.

    Keys inside their `metadata` or `meta` count too; the others are left out and named at the end.
    ["*"] takes all: think of what a column may say of a person.
    """

    language: str | None = None
    """Language of documents that state none, as two or three letters."""

    license: str = ""
    """License of documents that state none, for example CC-BY-4.0."""

    content: Selector = ""
    """CSS selector of the part of a page that is content (html, warc), for example "main article".

    Empty: trafilatura finds it.
    """

    drop_outer_matter: bool = False
    """Leave out the front and back matter (title, contents, index) of long PDF files.

    The first and last pages of files of 100 pages and more, by MMedLM's rule.
    """

    ocr: bool = True
    """Recognise scanned PDF pages if the extra `ocr` is installed.

    Otherwise they are counted and named.
    """

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
