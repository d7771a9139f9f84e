"""Reads questions with a reference answer in place of options, by the columns of a task file."""

from dataclasses import dataclass
from typing import Any

from evaluation.question_sets import jsonl
from evaluation.question_sets.field_reader import (
    MappedQuestion,
    Record,
    as_text,
    is_blank,
    record_reader,
)
from evaluation.question_sets.fields import ReferenceFields
from evaluation.question_sets.reader import Reader


@dataclass(frozen=True, slots=True)
class ReferenceQuestion(MappedQuestion):
    """A question without options; `answer` is the first reference."""

    references: tuple[str, ...] = ()
    """Right answers."""
    limits: tuple[str, str] | None = None
    """The lowest and the highest right number as the file has them; None: the reference's."""


def reader(fields: ReferenceFields, split: str | None = None, unique_ids: bool = True) -> Reader:
    """Return the reader of a task's files.

    Args:
        fields: the columns.
        split: read only records of this split; None: all.
        unique_ids: whether an id that occurs twice is an error.
    """
    return record_reader(lambda row: _ReferenceRecord(fields, row), fields, split, unique_ids)


@dataclass(frozen=True, slots=True)
class _ReferenceRecord(Record):
    """A record with a reference answer."""

    fields: ReferenceFields

    def question(self) -> ReferenceQuestion:
        """Return the question."""
        fields = self.fields
        references = self.references()
        return ReferenceQuestion(
            id=self.id(),
            context=self.optional_text("context", fields.context),
            question=self.text("question", fields.question),
            options={},
            answer=references[0],
            language=self.language(),
            subject=self.optional_text("subject", fields.subject),
            rationale=self.optional_text("rationale", fields.rationale),
            references=references,
            limits=self.limits(),
            doc=self.row.record,
        )

    def references(self) -> tuple[str, ...]:
        """Return the right answers."""
        value = self.value("answer", self.fields.answer)
        values = value if isinstance(value, list | tuple) else [value]
        texts = [_reference(item) for item in values]
        if not texts or any(text is None or is_blank(text) for text in texts):
            raise self.error(
                "answer",
                f"must be a text, a number, or a list of them, not {jsonl.shown(value)}; the key"
                " 'filter' can exclude the record",
            )
        return tuple(text for text in texts if text is not None)

    def limits(self) -> tuple[str, str] | None:
        """Return the limits; None where the task names none."""
        fields = self.fields
        if fields.lower is None or fields.upper is None:
            return None
        limits = []
        for key, column in (("lower", fields.lower), ("upper", fields.upper)):
            value = self.value(key, column)
            text = _reference(value)
            if text is None or is_blank(text):
                raise self.error(key, f"must be a number, not {jsonl.shown(value)}")
            limits.append(text)
        return limits[0], limits[1]


def _reference(value: Any) -> str | None:
    """Return a text or a number as text; None for anything else."""
    return repr(value) if isinstance(value, float) else as_text(value)
