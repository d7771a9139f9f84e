"""Readers of English question sets, each for the layout that its authors published."""

import hashlib
from collections.abc import Sequence
from typing import Any

from evaluation.question_sets import jsonl
from evaluation.question_sets.question import LETTERS, Question, joined, with_text
from evaluation.question_sets.rows import Row

YES_NO_MAYBE = {"A": "yes", "B": "no", "C": "maybe"}


def lettered(texts: Sequence[Any], row: Row) -> dict[str, str]:
    """Return options as letters and texts.

    Raises:
        DataError: there are fewer than two, or one is no text.
    """
    if (
        not isinstance(texts, list)
        or len(texts) < 2
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        raise row.wrong(
            f"at least two options with a text each are wanted, not {jsonl.shown(texts)}"
        )
    if len(texts) > len(LETTERS):
        raise row.wrong(f"{len(texts)} options are more than there are letters")
    return dict(zip(LETTERS, (text.strip() for text in texts), strict=False))


def options(row: Row, key: str = "options") -> dict[str, str]:
    """Return the options under a key: an object, a list of texts, or of `{"key", "value"}`.

    Options without a text, which Parquet files have where questions differ in their number of
    options, are left out.
    """
    value = row.record.get(key)
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        return lettered(value, row)
    pairs = list(
        value.items()
        if isinstance(value, dict)
        else [(item["key"], item["value"]) for item in value or []]
    )
    if len({letter for letter, _ in pairs}) < len(pairs):
        raise row.wrong(
            f"key {key!r} names a letter twice: {', '.join(letter for letter, _ in pairs)}"
        )
    found = {letter.strip().upper(): text for letter, text in pairs if text not in (None, "")}
    if len(found) < 2 or not all(isinstance(text, str) and text.strip() for text in found.values()):
        raise row.wrong(
            f"key {key!r} must hold at least two options with a text each, not {jsonl.shown(value)}"
        )
    return {letter: text.strip() for letter, text in sorted(found.items())}


def answer(letters: Sequence[str], of: dict[str, str], row: Row) -> str:
    """Return right letters in the form of `Question.answer`.

    Raises:
        DataError: there are none, or one is no option.
    """
    letters = [letter.strip().upper() for letter in letters]
    if not letters or any(letter not in of for letter in letters):
        raise row.wrong(
            f"the right answer is {', '.join(letters)[:60] or 'missing'}; it must be among the"
            f" options {', '.join(of)}"
        )
    return joined(letters, of)


def place(row: Row, key: str, count: int, first: int = 0) -> str:
    """Return the letter of the option whose number, from `first` on, is under a key."""
    number = row.record.get(key)
    if isinstance(number, str) and number.strip().isdigit():
        number = int(number)
    if (
        not isinstance(number, int)
        or isinstance(number, bool)
        or not first <= number < first + count
    ):
        raise row.wrong(
            f"key {key!r} must be a whole number from {first} to {first + count - 1}, not"
            f" {jsonl.shown(number)}"
        )
    return LETTERS[number - first]


def medqa(row: Row) -> Question:
    """MedQA (USMLE), five or four options.

    Keys: `question`, `options`, `answer_idx` or the text in `answer`, `meta_info`.
    """
    given = options(row)
    letters = (
        [row.text("answer_idx")]
        if row.record.get("answer_idx")
        else with_text(row.text("answer"), given)
    )
    if len(letters) > 1:
        raise row.wrong(
            f"key 'answer' is the text of the options {' and '.join(letters)}; leave one of them"
            " out, or give the answer's letter in 'answer_idx'"
        )
    return Question(
        row.identifier("id") or row.id,
        "",
        row.text("question"),
        given,
        answer(letters, given, row),
        "medqa",
        subject=row.optional_text("meta_info"),
    )


def medmcqa(row: Row) -> Question | None:
    """MedMCQA: `opa` to `opd`, `cop`, `exp`; test rows without an answer are left out.

    The authors' JSON Lines count from 1, the Parquet files of the hub from 0 (there, hidden answers
    are -1); only the former are named `.json`.
    """
    given = lettered([row.text(key) for key in ("opa", "opb", "opc", "opd")], row)
    cop = row.record.get("cop")
    if cop is None or cop == -1:
        return None
    from_one = ".json," in row.where
    return Question(
        row.identifier("id") or row.id,
        "",
        row.text("question"),
        given,
        place(row, "cop", 4, first=1 if from_one else 0),
        "medmcqa",
        subject=row.optional_text("subject_name"),
        rationale=row.optional_text("exp"),
    )


def pubmedqa(row: Row) -> Question | None:
    """PubMedQA: `ori_pqal.json`, `ori_pqaa.json` or the hub's rows, without unlabelled rows."""
    record = {key.lower(): value for key, value in row.record.items()}
    context = record.get("context", record.get("contexts"))
    if isinstance(context, dict):
        context = context.get("contexts")
    if not isinstance(context, list) or not all(isinstance(text, str) for text in context):
        raise row.wrong("key 'CONTEXTS' (or 'context') must be a list of texts")
    decision = record.get("final_decision")
    if decision is None:
        return None
    if decision not in YES_NO_MAYBE.values():
        raise row.wrong(
            f"key 'final_decision' must be yes, no or maybe, not {jsonl.shown(decision)}"
        )
    if not isinstance(record.get("question"), str) or not record["question"].strip():
        raise row.wrong("key 'QUESTION' (or 'question') must be a text")
    return Question(
        row.key or str(record.get("pubid") or record.get("id") or row.id),
        "\n".join(context),
        record["question"],
        dict(YES_NO_MAYBE),
        next(letter for letter, word in YES_NO_MAYBE.items() if word == decision),
        "pubmedqa",
        rationale=str(record.get("long_answer") or ""),
    )


def mmlu(row: Row) -> Question:
    """MMLU: its CSV files without a header (`SUBJECT_test.csv`), and the hub's rows.

    Keys of the rows: `question`, `choices`, `answer`, `subject`.
    """
    given = lettered(row.record.get("choices") or [], row)
    right = row.record.get("answer")
    letter = (
        right.strip()
        if isinstance(right, str) and right.strip() in given
        else place(row, "answer", len(given))
    )
    file = row.file.removesuffix("_test").removesuffix("_dev").removesuffix("_val")
    return Question(
        row.id,
        "",
        row.text("question"),
        given,
        letter,
        "mmlu",
        subject=row.optional_text("subject") or file,
    )


def truthfulqa(row: Row) -> Question:
    """TruthfulQA, single-true: the hub's `mc1_targets`, shuffled by a hash of the question.

    As published the right option is always the first; a fixed shuffle keeps the letters from giving
    it away.
    """
    targets = row.record.get("mc1_targets") or {}
    choices, labels = targets.get("choices"), targets.get("labels")
    if not choices or not labels or len(choices) != len(labels) or sum(labels) != 1:
        raise row.wrong("key 'mc1_targets' must hold as many 'labels' as 'choices', one of them 1")
    text = row.text("question")
    order = sorted(
        range(len(choices)),
        key=lambda index: hashlib.sha256(f"{text}\n{choices[index]}".encode()).digest(),
    )
    given = lettered([choices[index] for index in order], row)
    return Question(
        row.id,
        "",
        text,
        given,
        LETTERS[order.index(labels.index(1))],
        "truthfulqa",
        subject=row.optional_text("category"),
    )


def medxpertqa(row: Row) -> Question:
    """MedXpertQA Text: `options` A to J, `label`.

    Its `question` repeats the options after `Answer Choices:`; these are cut.
    """
    given = options(row)
    text = row.text("question").split("\nAnswer Choices:")[0].strip()
    subject = row.optional_text("body_system") or row.optional_text("medical_task")
    return Question(
        row.needed_identifier("id"),
        "",
        text,
        given,
        answer([row.text("label")], given, row),
        "medxpertqa",
        subject=subject,
    )
