"""The steps that a recipe can name, with their settings.

What each does: its file in filters/, dedup/,
decontamination/ or mixture/, which `curation.registry` names.
"""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(kw_only=True, config=STRICT)
class OfSources:
    """A step that can be limited to some sources."""

    sources: list[str] | None = Field(  # what stands below a field is not inherited
        default=None,
        description=(
            "Names of the sources whose documents go through this step, the others pass it by;"
            " null: all."
        ),
    )


@dataclass(kw_only=True, config=STRICT)
class Abstract:
    """Drop documents without text and, if `required`, those that are only a title."""

    step: Literal["abstract"] = "abstract"
    required: bool = True
    """Drop documents that have only a title."""


@dataclass(kw_only=True, config=STRICT)
class ArticleLanguage:
    """Keep articles by the language in their record (for that of the text see language_id)."""

    step: Literal["language"] = "language"
    languages: list[str] = Field(default_factory=lambda: ["eng"])
    """Codes of languages, MEDLINE's of three letters or ISO's of two."""


@dataclass(kw_only=True, config=STRICT)
class Retraction:
    """Drop retracted articles and retraction notices."""

    step: Literal["retraction"] = "retraction"


@dataclass(kw_only=True, config=STRICT)
class Copyright(OfSources):
    """Drop abstracts by their copyright line."""

    step: Literal["copyright"] = "copyright"
    rule: Literal["any_claim", "explicit", "ignore"] = "any_claim"
    """Which copyright lines drop an abstract.

    any_claim: each that names no Creative Commons license or public domain; explicit: only one that
    reserves rights in words; ignore: none.
    """


@dataclass(kw_only=True, config=STRICT)
class License(OfSources):
    """Keep documents by the license of their article."""

    step: Literal["license"] = "license"
    allowed: list[str] = Field(
        default_factory=lambda: ["CC0", "CC-BY", "CC-BY-SA", "CC-BY-ND", "public-domain"]
    )
    """Allowed licenses.

    The default is the set of Creative Commons licenses that allow commercial use, as BioMistral's
    corpus has.
    """

    if_missing: Literal["drop", "keep"] = "drop"
    """What becomes of documents without a license that is understood."""


@dataclass(kw_only=True, config=STRICT)
class LanguageId(OfSources):
    """Identify the language of the text, paragraph by paragraph.

    Drop documents in other languages or without a clear one.
    """

    step: Literal["language_id"] = "language_id"
    languages: list[str] | None = None
    """Languages to keep, codes of two letters; null keeps all and only notes the language."""

    min_fraction: Share = 0.5
    """Share of the letters that must be in the document's main language."""

    candidates: list[str] | None = None
    """Languages to tell apart, besides those of `languages`.

    null takes the twenty of filters/language_id.py.
    """


@dataclass(kw_only=True, config=STRICT)
class Medical(OfSources):
    """Keep documents with enough different medical terms that fill enough of the text.

    This is MMedLM's rule. Needs language_id before.
    """

    step: Literal["medical"] = "medical"
    min_unique: int | None = Field(default=None, ge=1)
    """Different terms needed in 300 words or more, fewer in shorter texts.

    null takes the language's own (filters/medical.py).
    """

    min_density: Share | None = None
    """Characters in terms, by characters of text; null takes the language's own."""

    other_languages: Literal["drop", "keep"] = "drop"
    """What becomes of documents in a language without a list of terms."""

    keywords: str | None = None
    """Folder with <language>.txt lists of one's own; null takes data_prep/steps/filters/keywords.
    """


@dataclass(kw_only=True, config=STRICT)
class PublicationType:
    """Drop articles of the given publication types."""

    step: Literal["publication_type"] = "publication_type"
    drop: list[str] = Field(min_length=1)
    """Publication types as MEDLINE writes them, for example Editorial, Comment, Preprint."""


@dataclass(kw_only=True, config=STRICT)
class AnimalOnly:
    """Drop studies of animals alone.

    MeSH heading Animals without Humans, or a veterinary publication type.
    """

    step: Literal["animal_only"] = "animal_only"


@dataclass(kw_only=True, config=STRICT)
class Length(OfSources):
    """Drop documents by their number of words (Chinese, Japanese: half the characters)."""

    step: Literal["length"] = "length"
    min_words: int = Field(default=20, ge=0)
    """Fewest words."""

    max_words: int | None = Field(default=None, ge=1)
    """Most words."""


@dataclass(kw_only=True, config=STRICT)
class Quality(OfSources):
    """Gopher's quality rules by datatrove, set so that clinical prose stays.

    null switches a rule off.
    """

    step: Literal["quality"] = "quality"
    min_avg_word_length: float | None = 2.5
    """Mean letters a word, at least."""

    max_avg_word_length: float | None = 12.0
    """Mean letters a word, at most: chemistry and German have long words."""

    max_symbol_word_ratio: float | None = 0.1
    """Hash signs or ellipses by words."""

    max_bullet_lines_ratio: float | None = 0.9
    """Share of lines that begin with a bullet."""

    max_ellipsis_lines_ratio: float | None = 0.6
    """Share of lines that end in an ellipsis.

    Gopher's 0.3 drops any abstract of one paragraph that ends so.
    """

    min_alpha_words_ratio: float | None = 0.6
    """Share of words with a letter; Gopher's 0.8 drops abstracts full of figures."""

    min_stop_words: int | None = 2
    """Different stop words; for languages with a list only."""


@dataclass(kw_only=True, config=STRICT)
class Repetition(OfSources):
    """Gopher's repetition rules by datatrove: repeated lines, paragraphs and word sequences."""

    step: Literal["repetition"] = "repetition"
    dup_line_frac: float | None = 0.3
    """Share of repeated lines."""

    dup_para_frac: float | None = 0.3
    """Share of repeated paragraphs."""

    top_ngram_factor: float = Field(default=2.0, gt=0)
    """Multiplies Gopher's limits for the share of the most frequent 2-, 3- and 4-gram.

    With 1, short abstracts on one substance are dropped.
    """


@dataclass(kw_only=True, config=STRICT)
class Pii:
    """Replace e-mail and public IP addresses, and telephone numbers on request.

    This is NOT de-identification: names, record numbers,
    dates, addresses and national numbers stay.
    """

    step: Literal["pii"] = "pii"
    emails: bool = True
    """Replace e-mail addresses."""

    ips: bool = True
    """Replace public IP addresses."""

    phones: bool = False
    """Replace international telephone numbers.

    Such a number is a plus sign, a country's code and a number of that country.
    """


@dataclass(kw_only=True, config=STRICT)
class RepeatedLines:
    """Cut lines, or sentences, that occur in many documents.

    Boilerplate such as "All rights reserved" or "Read more".
    """

    step: Literal["line_dedup"] = "line_dedup"
    max_documents: int = Field(default=10, ge=1)
    """A line in more documents than this is cut out of all but the first."""

    min_words: int = Field(default=4, ge=1)
    """Shorter lines, such as headings, stay."""

    unit: Literal["line", "sentence"] = "line"
    """Unit of comparison.

    Lines, or the sentences in them (by sentencex, in the language that language_id noted, else
    English).
    """


@dataclass(kw_only=True, config=STRICT)
class Duplicate:
    """Drop documents with the id of a later one, or with the text of an earlier one."""

    step: Literal["exact_dedup"] = "exact_dedup"


@dataclass(kw_only=True, config=STRICT)
class Identifier:
    """Keep one document for each article over all sources: full text before abstract."""

    step: Literal["dedup_by_id"] = "dedup_by_id"
    keys: list[str] = Field(
        default_factory=lambda: ["pmid", "pmcid", "doi", "corpus_id"], min_length=1
    )
    """Fields of the metadata that identify an article; one in common is enough."""

    prefer: list[str] = Field(default_factory=list)
    """Names of sources, the best first; sources not named come after them in the recipe's order.

    Of one source the longest text stays.
    """


@dataclass(kw_only=True, config=STRICT)
class NearDuplicate:
    """Drop near-duplicates by MinHash (datatrove); of a cluster one document stays."""

    step: Literal["minhash_dedup"] = "minhash_dedup"
    n_grams: int = Field(default=5, ge=1)
    """Words in a shingle."""

    num_buckets: int = Field(default=14, ge=1)
    """Bands of the signature."""

    hashes_per_bucket: int = Field(default=8, ge=1)
    """Hashes in a band.

    Pairs are found with probability 1 - (1 - s^hashes_per_bucket)^num_buckets at a similarity s.
    """

    keep: Literal["longest", "first"] = "longest"
    """Which stays: the longest text (of equals the first), or the first in the recipe's order."""

    seed: int = 1
    """Of the hash functions."""


@dataclass(kw_only=True, config=STRICT)
class Decontaminate:
    """Find text of evaluation sets; drop the documents or cut the spans."""

    step: Literal["decontaminate"] = "decontaminate"
    eval_datasets: list[str] = Field(min_length=1)
    """JSONL files (or folders, globs) with the evaluation items."""

    fields: list[str] = Field(
        default_factory=lambda: ["question", "options", "context"], min_length=1
    )
    """Fields of an item to look for, each by itself. Lists and dictionaries are joined."""

    n_grams: int = Field(default=13, ge=3)
    """Words of a matching sequence.

    In Chinese and Japanese, characters count, and 1.5 times as many are needed.
    """

    min_words: int = Field(default=8, ge=3)
    """Fields with fewer words are not looked for; those between the two numbers must match whole.
    """

    min_ratio: Share = 0.0
    """Share of an item's words that must be found in a document to count, besides one sequence."""

    max_item_frequency: int = Field(default=10, ge=2)
    """A sequence that stands in this many different items is a common phrase and does not count."""

    common_phrases: str | None = None
    """File of phrases, one a line, that do not count either.

    null takes data_prep/steps/decontamination/common_phrases.txt.
    """

    action: Literal["drop", "redact", "report"] = "drop"
    """drop the document, redact the matched spans, or only record them."""


@dataclass(kw_only=True, config=STRICT)
class Upsample:
    """MEDITRON's repeats by score: 1 + factor × score, rounded by chance."""

    factor: float = Field(default=1.0, ge=0)
    """Multiplies the score."""

    reference_date: date = date(2023, 7, 15)
    """Date from which an article's age is counted."""

    sources: list[str] | None = None
    """Sources that take part; null: of each source the documents that name a publication type."""


@dataclass(kw_only=True, config=STRICT)
class Mixture:
    """How often each document is taken.

    By weights, caps and replay, with a hash of the seed and the identifier.
    """

    step: Literal["mixture"] = "mixture"
    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(default_factory=dict)
    """Repeats by source name, up to 1,000, 1 where not named.

    0.0004 takes that share of the documents, 2.5 two or three repeats of each.
    """

    max_tokens: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """Cap by source name.

    Documents are taken in the order of their hash until the next one would go over it.
    """

    replay: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of all tokens that a source shall make up, by source name.

    Reached with complete documents, sampled evenly.
    """

    upsample: Upsample | None = None
    """Repeats by MEDITRON's score; null: none."""

    seed: int = 42
    """Another seed takes other documents."""

    @model_validator(mode="after")
    def _leaves_room(self) -> "Mixture":
        if sum(self.replay.values()) >= 1:
            raise ValueError(
                f"replay makes up {sum(self.replay.values()):g} of all tokens: it must leave some"
                " to the other sources"
            )
        return self


def _named(items: Any) -> Any:
    """Let a step without settings be its bare name."""
    return (
        [{"step": item} if isinstance(item, str) else item for item in items]
        if isinstance(items, list)
        else items
    )


Step = Annotated[
    Abstract
    | ArticleLanguage
    | Retraction
    | Copyright
    | License
    | LanguageId
    | Medical
    | PublicationType
    | AnimalOnly
    | Length
    | Quality
    | Repetition
    | Pii
    | RepeatedLines
    | Duplicate
    | Identifier
    | NearDuplicate
    | Decontaminate
    | Mixture,
    Field(discriminator="step"),
]
Steps = Annotated[list[Step], BeforeValidator(_named)]
