"""Reads conversations with rubrics in the layouts of HealthBench and HealthBench Professional.

HealthBench (Arora et al. 2025, arXiv 2505.08775) has `prompt_id`, `prompt`, `rubrics` and
`example_tags`, such as `theme:global_health`; its meta-evaluation has an answer (`completion`), a
criterion (`rubric`) and the labels of physicians. HealthBench Professional (2026, arXiv 2604.27470)
has `id`, `conversation`, `rubric_items`, and in place of tags `use_case`, `type`, `difficulty` and
`specialty`. Conversations of one's own have `id` and `messages`, and no rubric.
"""

import hashlib
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.question_sets import jsonl, rows
from evaluation.question_sets.rows import Row
from galen.errors import DataError

ROLES = ("system", "user", "assistant")
THEMES = (
    "communication",
    "complex_responses",
    "context_seeking",
    "emergency_referrals",
    "global_health",
    "health_data_tasks",
    "hedging",
)
"""Themes of HealthBench; the categories of its meta-evaluation begin with one."""
_CLUSTER = "cluster:"
_GROUPS = ("use_case", "type", "difficulty", "specialty")
"""Columns of HealthBench Professional that divide its conversations."""

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Criterion:
    """A criterion of a rubric."""

    text: str
    points: float
    """Added to the score of an answer that meets it; negative for what is undesirable."""
    tags: tuple[str, ...] = ()
    """Such as `axis:accuracy`."""


@dataclass(frozen=True, slots=True)
class RubricConversation:
    """A conversation whose next message is scored against a rubric."""

    id: str
    messages: tuple[Message, ...]
    """Roles and texts; the last is the user's."""
    rubric: tuple[Criterion, ...]
    tags: tuple[str, ...] = ()
    """Such as `theme:global_health`."""


@dataclass(frozen=True, slots=True)
class LabeledAnswer:
    """An answer, a criterion, and whether physicians find that it meets the criterion."""

    id: str
    messages: tuple[Message, ...]
    answer: str
    criterion: str
    category: str
    """Such as `cluster:context_seeking_enough-context_precise`."""
    labels: tuple[bool, ...]
    """One for each physician."""
    physicians: tuple[str, ...]
    """The physicians' ids; empty where the file names none."""

    @property
    def theme(self) -> str:
        """The theme of the category, or the category where it has none."""
        name = self.category.removeprefix(_CLUSTER)
        return next((theme for theme in THEMES if name.startswith(theme)), name)


def read(source: str | Path, layout: str) -> list[RubricConversation]:
    """Read conversations with rubrics.

    Raises:
        DataError: nothing is there, or a record is wrong.
    """
    conversations = [_LAYOUTS[layout](row) for row in rows.read(source)]
    _check_ids([item.id for item in conversations], source)
    return conversations


def read_labeled(path: Path) -> list[LabeledAnswer]:
    """Read HealthBench's meta-evaluation.

    Raises:
        DataError: nothing is there, or a record is wrong.
    """
    return [_labeled(row) for row in rows.read(path)]


def sample(items: Sequence[Any], limit: int | None) -> list[Any]:
    """Return at most `limit` items, chosen by the SHA-256 of their ids, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    order = [hashlib.sha256(item.id.encode()).digest() for item in items]
    chosen = heapq.nsmallest(limit, range(len(items)), key=lambda index: (order[index], index))
    return [items[index] for index in sorted(chosen)]


def _check_ids(ids: Sequence[str], source: str | Path) -> None:
    if not ids:
        raise DataError(f"{source} holds no conversation")
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise DataError(f"{source}: the id {jsonl.shown(id_)} occurs twice")
        seen.add(id_)


def _healthbench(row: Row) -> RubricConversation:
    return RubricConversation(
        row.needed_identifier("prompt_id"),
        _messages(row, row.record, "prompt"),
        _rubric(row, "rubrics", "criterion"),
        _texts(row, row.record, "example_tags"),
    )


def _professional(row: Row) -> RubricConversation:
    conversation = row.record.get("conversation")
    if not isinstance(conversation, dict):
        raise row.wrong(
            f"key 'conversation' must be an object with 'messages', not"
            f" {jsonl.found(row.record, 'conversation')}"
        )
    tags = [f"{key}:{row.optional_text(key)}" for key in _GROUPS if row.optional_text(key)]
    return RubricConversation(
        row.needed_identifier("id"),
        _messages(row, conversation, "messages"),
        _rubric(row, "rubric_items", "criterion_text"),
        tuple(tags),
    )


def _plain(row: Row) -> RubricConversation:
    """Return a conversation without a rubric, for comparisons of answers."""
    return RubricConversation(
        row.needed_identifier("id"), _messages(row, row.record, "messages"), ()
    )


_LAYOUTS: dict[str, Callable[[Row], RubricConversation]] = {
    "conversations": _plain,
    "healthbench": _healthbench,
    "healthbench_professional": _professional,
}


def _messages(row: Row, record: dict[str, Any], key: str) -> tuple[Message, ...]:
    messages = record.get(key)
    if not isinstance(messages, list) or not messages:
        raise row.wrong(f"key {key!r} must be a list of messages, not {jsonl.found(record, key)}")
    result = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str) or not content.strip():
            raise row.wrong(
                f"key {key!r}: a message needs 'role' ({', '.join(ROLES)}) and 'content', a text,"
                f" not {jsonl.shown(message)}"
            )
        result.append({"role": role, "content": content})
    if result[-1]["role"] != "user":
        raise row.wrong(f"key {key!r}: the last message must be the user's")
    return tuple(result)


def _rubric(row: Row, key: str, text_key: str) -> tuple[Criterion, ...]:
    """Return the criteria; at least one has positive points, else no score is defined."""
    items = row.record.get(key)
    if not isinstance(items, list):
        raise row.wrong(f"key {key!r} must be a list of criteria, not {jsonl.shown(items)}")
    criteria = []
    for item in items:
        text = item.get(text_key) if isinstance(item, dict) else None
        points = item.get("points") if isinstance(item, dict) else None
        is_text = isinstance(text, str) and bool(text.strip())
        if not is_text or not isinstance(points, int | float) or not _is_number(points):
            raise row.wrong(
                f"key {key!r}: a criterion needs {text_key!r}, a text, and 'points', a number, not"
                f" {jsonl.shown(item)}"
            )
        criteria.append(Criterion(str(text), float(points), _texts(row, item, "tags")))
    if not any(criterion.points > 0 for criterion in criteria):
        raise row.wrong(f"key {key!r}: no criterion has positive points")
    return tuple(criteria)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _texts(row: Row, record: dict[str, Any], key: str) -> tuple[str, ...]:
    values = record.get(key)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise row.wrong(f"key {key!r} must be a list of texts, not {jsonl.shown(values)}")
    return tuple(dict.fromkeys(values))


def _labeled(row: Row) -> LabeledAnswer:
    labels: Any = row.record.get("binary_labels")
    is_list = isinstance(labels, list) and bool(labels)
    if not is_list or not all(isinstance(label, bool) for label in labels):
        raise row.wrong(
            "key 'binary_labels' must be a list of true and false, not"
            f" {jsonl.found(row.record, 'binary_labels')}"
        )
    physicians = _texts_with_repetitions(row, "anonymized_physician_ids")
    if physicians and len(physicians) != len(labels):
        raise row.wrong(f"{len(labels)} labels of {len(physicians)} physicians")
    return LabeledAnswer(
        id=f"{row.identifier('completion_id')}:{row.number}",
        messages=_messages(row, row.record, "prompt"),
        answer=row.text("completion"),
        criterion=row.text("rubric"),
        category=row.text("category"),
        labels=tuple(labels),
        physicians=physicians,
    )


def _texts_with_repetitions(row: Row, key: str) -> tuple[str, ...]:
    values = row.record.get(key) or []
    if not isinstance(values, list):
        raise row.wrong(f"key {key!r} must be a list, not {jsonl.shown(values)}")
    return tuple(str(value) for value in values)
