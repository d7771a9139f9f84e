"""A layout of one's own: which columns of a file hold the parts of a question.

The section `fields` of a task file. A value is the name of a column, or a Jinja template over the
columns: `{{ stem }}`, or `{{ doc['Stem of the item'] }}` for names that are not identifiers.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from evaluation.question_sets import expressions, jsonl
from evaluation.question_sets.expressions import Expression, Template
from galen import recipe

AnswerFormat = Literal["label", "text", "index", "one_based_index"]


def _columns(value: Any) -> Any:
    """Check the key `options`: a name, a list of names, or a mapping of labels to names."""
    if value is None:
        return None
    names = value
    if isinstance(value, dict):
        names = [*value, *value.values()]
    elif isinstance(value, str):
        names = [value]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "must be a column, a list of columns, or a mapping of labels to columns, all of them"
            f" text, not {jsonl.shown(value)}"
        )
    if not isinstance(value, str) and len(value) < 2:
        raise ValueError(
            "must name at least two columns; a single column is written without a list"
        )
    for name in names:
        expressions.check_template(name)
    return value


def _labels(value: Any) -> Any:
    """Check the key `labels`: a list of different labels, or a column."""
    if value is None or isinstance(value, str):
        return expressions.check_template(value or "") or None
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise ValueError(f"must be a list of texts (in quotes), not {jsonl.shown(value)}")
    wrong = wrong_label(value)
    if wrong:
        raise ValueError(wrong)
    return value


def wrong_label(labels: list[str]) -> str:
    """Return what is wrong with labels; empty where nothing is."""
    for label in labels:
        if label.split() != [label] or "," in label:
            return f"{label!r} cannot label an option: no spaces, no commas"
        if labels.count(label) > 1:
            return f"{label!r} labels two options"
    return ""


@dataclass(kw_only=True, config=recipe.STRICT)
class RecordFields:
    """Columns that all kinds of records have; each a name or a Jinja template."""

    id: Template | None = None
    """Id of the record; null: name of the file and position."""
    question: Template
    """The question."""
    context: Template | None = None
    """What to read before answering."""
    subject: Template | None = None
    """Subject; scores are also given by subject."""
    rationale: Template | None = None
    """Explanation of the answer."""
    language: Template = "en"
    """ISO 639-1 code of all records, or a template; not a column's name."""
    split: Template | None = None
    """Split of the record, for `test_split` and `fewshot_split`."""
    filter: Expression | None = None
    """Jinja expression: only records for which it is true are read; null: all."""
    columns: list[str] | None = None
    """Columns of CSV and TSV files without a header; null: the first line names them."""

    def __post_init__(self) -> None:
        self.yaml = "the task file"
        check_unique("columns", self.columns)


def check_unique(key: str, texts: list[str] | None) -> None:
    """Check that a list names nothing twice.

    Raises:
        ValueError: it does.
    """
    for text in texts or []:
        if (texts or []).count(text) > 1:
            raise ValueError(f"key {key!r} lists {text!r} twice")


@dataclass(kw_only=True, config=recipe.STRICT)
class Fields(RecordFields):
    """Columns of multiple-choice questions; each a name or a Jinja template."""

    options: Annotated[str | list[str] | dict[str, str] | None, BeforeValidator(_columns)] = None
    """The options.

    One column (a list of texts, a mapping of labels to texts, or a list of {"key", "value"}), a
    list of columns, or a mapping of labels to columns. A blank last column is no option.
    """
    fixed_options: list[str] | None = None
    """In place of `options`: texts that are the same for all records, such as [yes, no]."""
    labels: Annotated[str | list[str] | None, BeforeValidator(_labels)] = None
    """Labels of the options in their order, or their column; null: the file's, or A, B, …"""
    answer: Template
    """The right answer, or a list of several."""
    answer_format: AnswerFormat = "label"
    """Form of the answer: an option's label or text, its position from 0, or from 1."""
    question_set: str = ""
    """Benchmark whose wording published templates use, such as medqa."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.options is None) == (self.fixed_options is None):
            raise ValueError("give one of the keys 'options' and 'fixed_options'")
        if self.fixed_options is not None and len(self.fixed_options) < 2:
            raise ValueError("key 'fixed_options' must list at least two options")
        check_unique("fixed_options", self.fixed_options)


@dataclass(kw_only=True, config=recipe.STRICT)
class ReferenceFields(RecordFields):
    """Columns of questions with a reference answer; each a name or a Jinja template."""

    answer: Template
    """The reference answer, or a list of several of which each is right."""
    lower: Template | None = None
    """With metric numeric: the lowest right number."""
    upper: Template | None = None
    """With metric numeric: the highest right number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.lower is None) != (self.upper is None):
            raise ValueError("keys 'lower' and 'upper' go together")
