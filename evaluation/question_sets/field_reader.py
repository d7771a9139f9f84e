"""Reads records by the columns that a task file, or the file of a layout, names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.question_sets import expressions, jsonl
from evaluation.question_sets.expressions import ExpressionError
from evaluation.question_sets.fields import Fields, RecordFields, wrong_label
from evaluation.question_sets.question import LETTERS, Question, joined
from evaluation.question_sets.reader import OtherSplit, Reader
from evaluation.question_sets.rows import Row, Table
from galen import recipe
from galen.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class MappedQuestion(Question):
    """A question with all columns of its record, for the task's own prompt."""

    doc: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The record."""


def task_reader(fields: Fields, split: str | None = None, unique_ids: bool = True) -> Reader:
    """Return the reader of a task's files, whose questions are `MappedQuestion`.

    Args:
        fields: the columns.
        split: read only records of this split; None: all.
        unique_ids: whether an id that occurs twice is an error.
    """
    return record_reader(lambda row: _ChoiceRecord(fields, row), fields, split, unique_ids)


def record_reader(
    record_of: Callable[[Row], "Record"], fields: RecordFields, split: str | None, unique_ids: bool
) -> Reader:
    """Return the reader of a task's files.

    Args:
        record_of: reads a record.
        fields: the columns.
        split: read only records of this split; None: all.
        unique_ids: whether an id that occurs twice is an error.
    """

    def convert(row: Row) -> Question | OtherSplit | None:
        record = record_of(row)
        if not record.passes_filter():
            return None
        return record.other_split(split) or record.question()

    return Reader(
        name=fields.yaml,
        convert=convert,
        split=split,
        unique_ids=unique_ids and fields.id is not None,
        id_key=f"key 'fields.id' of {fields.yaml}",
        table=table(fields),
    )


def load(path: Path) -> Reader:
    """Return the reader of a published layout that is a file of `fields`, named by the file.

    An id may occur twice, as it does in published files.
    """
    fields: Fields = recipe.load(Fields, path)
    fields.yaml = path.name

    def convert(row: Row) -> Question | None:
        record = _ChoiceRecord(fields, row)
        return Question(**record.parts()) if record.passes_filter() else None

    return Reader(name=path.stem, convert=convert, table=table(fields))


def table(fields: RecordFields) -> Table:
    """Return the columns of CSV and TSV files."""
    return Table(None if fields.columns is None else tuple(fields.columns))


@dataclass(frozen=True, slots=True)
class _Option:
    """An option as the file has it."""

    key: str
    """Its label in the file."""
    label: str
    """Its label in the question."""
    text: str


@dataclass(frozen=True, slots=True)
class Record(ABC):
    """One record, read by a layout."""

    fields: RecordFields
    row: Row

    @abstractmethod
    def question(self) -> MappedQuestion:
        """Return the question."""

    def passes_filter(self) -> bool:
        """Return whether the key `filter` keeps the record."""
        expression = self.fields.filter
        return expression is None or bool(self.computed("filter", expression))

    def other_split(self, split: str | None) -> OtherSplit | None:
        """Return the record's split if it is another one; None if it is to be read."""
        if split is None:
            return None
        own_split = self.text("split", self.fields.split or "")
        return None if own_split == split else OtherSplit(own_split)

    def error(self, key: str, message: str) -> DataError:
        """Return an error that names record, task file and key."""
        return self.row.wrong(f"key 'fields.{key}' of {self.fields.yaml}: {message}")

    def value(self, key: str, column: str) -> Any:
        """Return the value of a column or template.

        Raises:
            DataError: there is no such column, or the template fails.
        """
        record = self.row.record
        if expressions.is_template(column):
            return self.evaluated(key, expressions.evaluate, column)
        if column not in record:
            hint = did_you_mean(column, [str(name) for name in record])
            raise self.error(key, f"the record has no column {column!r}; {hint}")
        return record[column]

    def computed(self, key: str, expression: str) -> Any:
        """Return the value of an expression without braces."""
        return self.evaluated(key, expressions.compute, expression)

    def evaluated(
        self, key: str, method: Callable[[str, Mapping[str, Any]], Any], text: str
    ) -> Any:
        """Return what a method of `expressions` gives of the record."""
        try:
            return method(text, {**self.row.record, "doc": self.row.record})
        except ExpressionError as error:
            raise self.error(key, str(error)) from None

    def text(self, key: str, column: str) -> str:
        """Return a text that is not blank; integers are texts, too."""
        value = self.value(key, column)
        text = as_text(value)
        if text is None or not text.strip():
            raise self.error(key, f"must be a text that is not blank, not {jsonl.shown(value)}")
        return text

    def optional_text(self, key: str, column: str | None) -> str:
        """Return a text, empty where the key is not given or its value null or blank."""
        value = None if column is None else self.value(key, column)
        text = "" if value is None else as_text(value)
        if text is None:
            raise self.error(key, f"must be a text, not {jsonl.shown(value)}")
        return text if text.strip() else ""

    def id(self) -> str:
        """Return the id."""
        if self.fields.id is None:
            return self.row.key or self.row.id
        return self.text("id", self.fields.id)

    def language(self) -> str:
        """Return the language's code."""
        language = self.fields.language
        return self.text("language", language) if expressions.is_template(language) else language


@dataclass(frozen=True, slots=True)
class _ChoiceRecord(Record):
    """A record of a multiple-choice question."""

    fields: Fields

    def question(self) -> MappedQuestion:
        """Return the question."""
        return MappedQuestion(**self.parts(), doc=self.row.record)

    def parts(self) -> dict[str, Any]:
        """Return the parts of a question."""
        fields = self.fields
        options = self.options()
        return {
            "id": self.id(),
            "context": self.optional_text("context", fields.context),
            "question": self.text("question", fields.question),
            "options": {option.label: option.text for option in options},
            "answer": self.answer(options),
            "question_set": fields.question_set,
            "language": self.language(),
            "subject": self.optional_text("subject", fields.subject),
            "rationale": self.optional_text("rationale", fields.rationale),
        }

    def options(self) -> list[_Option]:
        """Return the options in their order."""
        key = "options" if self.fields.fixed_options is None else "fixed_options"
        pairs = self.pairs(key)
        if len(pairs) < 2:
            shown = jsonl.shown([text for _, text in pairs])
            raise self.error(key, f"a question needs at least two options, not {shown}")
        labels = self.labels(pairs)
        wrong = wrong_label(labels)
        if wrong:
            raise self.error("labels" if self.fields.labels else key, wrong)
        options: list[_Option] = []
        for (own, value), label in zip(pairs, labels, strict=True):
            text = as_text(value)
            if text is None or not text.strip():
                raise self.error(
                    key,
                    f"option {label} must be a text that is not blank, not {jsonl.shown(value)}",
                )
            options.append(_Option(own or label, label, text))
        return options

    def pairs(self, key: str) -> list[tuple[str, Any]]:
        """Return the file's label (empty where it has none) and the value of each option."""
        columns: Any = self.fields.fixed_options
        if columns is not None:
            return [("", text) for text in columns]
        columns = self.fields.options
        if isinstance(columns, str):
            return self.pairs_of_column(key, self.value(key, columns))
        if isinstance(columns, dict):
            pairs = [(label, self.value(key, column)) for label, column in columns.items()]
        else:
            pairs = [("", self.value(key, column)) for column in columns or ()]
        return _without_blank_end(pairs)

    def pairs_of_column(self, key: str, value: Any) -> list[tuple[str, Any]]:
        """Return label and value of each option of a column that holds them all."""
        if isinstance(value, dict):
            # Parquet has a null for each label that only other records have
            return _without_blank_end([(str(label), text) for label, text in value.items()])
        if not isinstance(value, list | tuple):
            raise self.error(
                key,
                f"the column must hold a list or a mapping of options, not {jsonl.shown(value)}; a"
                " cell of JSON is read by {{ COLUMN | fromjson }}",
            )
        if value and all(
            isinstance(item, dict) and {"key", "value"} <= set(item) for item in value
        ):
            return [(str(item["key"]), item["value"]) for item in value]
        return [("", text) for text in value]

    def labels(self, pairs: list[tuple[str, Any]]) -> list[str]:
        """Return the labels of the options."""
        labels: Any = self.fields.labels
        if labels is None:
            if len(pairs) > len(LETTERS):
                raise self.error("options", f"{len(pairs)} options need the key 'labels'")
            return [own or letter for (own, _), letter in zip(pairs, LETTERS, strict=False)]
        if isinstance(labels, str):
            labels = self.value("labels", labels)
            if not isinstance(labels, list | tuple):
                raise self.error("labels", f"must be a list of labels, not {jsonl.shown(labels)}")
            labels = [as_text(label) or "" for label in labels]
        if len(labels) < len(pairs):
            raise self.error("labels", f"{len(labels)} labels for {len(pairs)} options")
        return list(labels[: len(pairs)])

    def answer(self, options: list[_Option]) -> str:
        """Return the labels of the right options as `Question.answer` has them."""
        value = self.value("answer", self.fields.answer)
        if value is None or value == [] or is_blank(value):
            raise self.error(
                "answer",
                f"the record has no answer ({jsonl.shown(value)}); the key 'filter' can exclude it",
            )
        values = value if isinstance(value, list | tuple) else [value]
        right = {label for item in values for label in self.right(item, options)}
        return joined(right, {option.label: option.text for option in options})

    def right(self, value: Any, options: list[_Option]) -> list[str]:
        """Return the labels that one value of the answer names."""
        form = self.fields.answer_format
        text = as_text(value)
        if text is None:
            raise self.error("answer", f"must be a text or an integer, not {jsonl.shown(value)}")
        if form == "text":
            return self.with_text(text, options)
        if form == "label":
            return self.labeled(text, options)
        return self.at_index(text, options, 1 if form == "one_based_index" else 0)

    def with_text(self, text: str, options: list[_Option]) -> list[str]:
        """Return the label of the option that has a text; white space around it is ignored."""
        found = [option.label for option in options if option.text == text]
        found = found or [item.label for item in options if item.text.strip() == text.strip()]
        if len(found) != 1:
            how = "the text of several options" if found else "no option's text"
            raise self.error("answer", f"{jsonl.shown(text)} is {how}: {_listed(options)}")
        return found

    def at_index(self, text: str, options: list[_Option], first: int) -> list[str]:
        """Return the label of the option at a position, counted from `first`."""
        number = text.strip()
        last = first + len(options) - 1
        if not (number.isascii() and number.isdigit()) or not first <= int(number) <= last:
            raise self.error(
                "answer", f"must be an integer from {first} to {last}, not {jsonl.shown(text)}"
            )
        return [options[int(number) - first].label]

    def labeled(self, text: str, options: list[_Option]) -> list[str]:
        """Return the options' labels that a text names: one, or several with commas."""
        by_key = {option.key: option.label for option in options}
        names = (
            [text.strip()] if text.strip() in by_key else [part.strip() for part in text.split(",")]
        )
        unknown = [name for name in names if name not in by_key]
        if unknown:
            raise self.error(
                "answer", f"{jsonl.shown(unknown[0])} is not an option's label: {', '.join(by_key)}"
            )
        return [by_key[name] for name in names]


def as_text(value: Any) -> str | None:
    """Return a text as it is, an integer as text; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _without_blank_end(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return options without the last ones that are blank: the question has fewer than others."""
    while pairs and is_blank(pairs[-1][1]):
        pairs = pairs[:-1]
    return pairs


def is_blank(value: Any) -> bool:
    """Return whether a value is null or a text of white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def _listed(options: list[_Option]) -> str:
    return "; ".join(f"{option.label} {option.text!r}" for option in options)
