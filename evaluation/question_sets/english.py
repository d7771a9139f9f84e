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
    return dict(zip(LETTERS, texts, strict=False))


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
    return dict(sorted(found.items()))


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
            f"key {key!r} must be an integer from {first} to {first + count - 1}, not"
            f" {jsonl.shown(number)}"
        )
    return LETTERS[number - first]


def medqa(row: Row) -> Question:
    """MedQA (USMLE), five or four options.

    Keys: `question`, `options`, `answer_idx` or the text in `answer`, `meta_info`. The rows that
    lm-evaluation-harness reads have `sent1`, `ending0` to `ending3` and `label`.
    """
    if "ending0" in row.record:
        endings = lettered([row.text(f"ending{number}") for number in range(4)], row)
        right = place(row, "label", 4)
        return Question(
            row.identifier("id") or row.id, "", row.text("sent1"), endings, right, "medqa"
        )
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
    """TruthfulQA, single-true: options shuffled by a hash of the question.

    As published the right option is always the first; a fixed shuffle keeps the letters from giving
    it away.

    Layouts: the authors' `TruthfulQA.csv` (`Best Answer`, `Incorrect Answers`) and `mc_task.json`
    (`mc1_targets`: text to label), the hub's `multiple_choice` (`mc1_targets`: `choices` and
    `labels`) and `generation` (`best_answer`, `incorrect_answers`). Only the CSV and `generation`
    have the category. Some of the published choices are empty; lm-evaluation-harness scores them.
    """
    record = row.record
    text = row.text("Question" if "Question" in record else "question")
    right, wrong = _truthfulqa_answers(row)
    choices = [right, *wrong]
    order = sorted(
        range(len(choices)),
        key=lambda index: hashlib.sha256(f"{text}\n{choices[index]}".encode()).digest(),
    )
    if len(choices) < 2 or len(choices) > len(LETTERS):
        raise row.wrong(f"2 to {len(LETTERS)} options are needed, not {len(choices)}")
    shuffled = dict(zip(LETTERS, (choices[index] for index in order), strict=False))
    return Question(
        row.id,
        "",
        text,
        shuffled,
        LETTERS[order.index(0)],
        "truthfulqa",
        subject=row.optional_text("Category") or row.optional_text("category"),
    )


def _truthfulqa_answers(row: Row) -> tuple[str, list[str]]:
    """Return the right option and the wrong ones.

    Raises:
        DataError: the record has none of the published layouts.
    """
    record = row.record
    if "Best Answer" in record:
        wrong = [part.strip() for part in row.text("Incorrect Answers").split(";")]
        right = row.text("Best Answer").strip()
        return right, [text for text in dict.fromkeys(wrong) if text and text != right]
    if "best_answer" in record and "mc1_targets" not in record:
        wrong = record.get("incorrect_answers") or []
        if not isinstance(wrong, list) or not all(isinstance(text, str) for text in wrong):
            raise row.wrong("key 'incorrect_answers' must be a list of texts")
        return row.text("best_answer"), [text for text in wrong if text.strip()]
    targets = record.get("mc1_targets") or {}
    choices, labels = targets.get("choices"), targets.get("labels")
    if not isinstance(choices, list):
        choices, labels = list(targets), list(targets.values())
    if not all(isinstance(text, str) for text in choices):
        raise row.wrong("the choices of the key 'mc1_targets' must be texts")
    rights = [text for text, label in zip(choices, labels or (), strict=False) if label == 1]
    if not labels or len(choices) != len(labels) or len(rights) != 1 or not rights[0].strip():
        raise row.wrong("key 'mc1_targets' must hold as many 'labels' as 'choices', one of them 1")
    return rights[0], [text for text, label in zip(choices, labels, strict=True) if label != 1]
