"""A layout of question files: how a record is read, and what the rest must know about it."""

from collections.abc import Callable
from dataclasses import dataclass

from evaluation.question_sets.question import Question
from evaluation.question_sets.rows import Row, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedFewShot:
    """Few-shot examples that a published file brings with its records, in several sets."""

    read: Callable[[Row, int], list[Question]]
    """The examples of one set that a record brings."""
    sets: tuple[int, ...]
    """Names of the sets; a run has the set that its seed names."""
    size: int
    """Examples in a set."""
    subject_key: str
    """Key of a record's subject; all records of a subject bring the same examples."""
    description: str
    """The files and their sets, for messages."""


@dataclass(frozen=True, slots=True)
class OtherSplit:
    """A record of another split than the one that is read."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A layout of question files."""

    name: str
    convert: Callable[[Row], Question | OtherSplit | None]
    """Reads a record; None skips it."""
    split: str | None = None
    """The split that is read; None: all records."""
    unique_ids: bool = False
    """Whether an id that occurs twice is an error; else the second becomes `ID#2`."""
    id_key: str = "key 'id'"
    """Where the id comes from, for messages."""
    few_shot_by_subject: bool = False
    """Whether few-shot examples are those of the question's own subject, as in MMLU."""
    fixed_few_shot: FixedFewShot | None = None
    """Few-shot examples in the questions' own file; None where there are none."""
    table: Table | None = None
    """Columns of CSV and TSV files; None: MMLU's, without a header."""
