"""The recipe of a corpus."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from data_prep.readers.options import ReaderOptions
from galen.recipe import STRICT

SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True, config=STRICT)
class Source:
    """One kind of raw files."""

    reader: Literal["medline", "jats", "s2orc", "tei", "guidelines", "records", "html", "warc", "pdf"]
    """How to read them: docs/sources.md lists formats and endings. records: JSONL or Parquet as on the Hugging Face hub."""

    path: str
    """A file, a folder (searched below) or a glob; relative paths start at the working directory. Also an fsspec address (s3://…,
    hf://datasets/…), whose package must be installed."""

    options: ReaderOptions = Field(default_factory=ReaderOptions)
    """How to read and render them."""


@dataclass(kw_only=True, config=STRICT)
class Filters:
    """What stays."""

    require_abstract: bool = True
    """Drop records that have only a title."""

    drop_retracted: bool = True
    """Drop retracted articles and retraction notices."""

    languages: list[str] | None = Field(default_factory=lambda: ["eng"])
    """Languages of the articles to keep, MEDLINE's codes of three letters; null keeps all."""

    copyright: Literal["any_claim", "explicit", "ignore"] = "any_claim"
    """Which copyright lines drop a record. any_claim: each that names no Creative Commons licence or public domain; explicit:
    only those that reserve rights in words; ignore: none."""


@dataclass(kw_only=True, config=STRICT)
class SplitShares:
    """Shares of documents; a share of 0 leaves that part out."""

    train: float = Field(default=0.96, ge=0, le=1)
    """Share for training."""

    validation: float = Field(default=0.02, ge=0, le=1)
    """Share for the validation loss during training."""

    test: float = Field(default=0.02, ge=0, le=1)
    """Share for evaluation afterwards."""

    salt: str = "galen"
    """Another salt gives another random division."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> "SplitShares":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they are {total:g}")
        return self


@dataclass(kw_only=True, config=STRICT)
class CorpusRecipe:
    """A corpus: where its documents come from, which stay, how they are divided."""

    output: str
    """Folder for the corpus; it appears when all is done."""

    sources: list[Source] = Field(min_length=1)
    """Raw files, in order: of two records with the same PMID the later one stays."""

    filters: Filters = Field(default_factory=Filters)
    """What stays."""

    max_bad_share: float = Field(default=0.001, ge=0, le=1)
    """The command fails when more than this share of the records, or of the files, is in quarantine because it cannot be read."""

    split: SplitShares = Field(default_factory=SplitShares)
    """Shares of documents, by a hash of the PMID."""
