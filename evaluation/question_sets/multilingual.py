"""Records of question sets in other languages than English, or in several, to questions."""

import re

from evaluation.question_sets import jsonl
from evaluation.question_sets.english import answer, lettered, options, place
from evaluation.question_sets.question import Question
from evaluation.question_sets.reader import FixedFewShot
from evaluation.question_sets.rows import Row

LANGUAGES = {
    "English": "en",
    "Chinese": "zh",
    "Japanese": "ja",
    "French": "fr",
    "Russian": "ru",
    "Spanish": "es",
    "German": "de",
    "Portuguese": "pt",
    "Arabic": "ar",
}


def mmedbench(row: Row) -> Question:
    """MMedBench: `English.jsonl`, `Chinese.jsonl` ….

    `answer_idx` is `A`, `A,C` or a list; `rationale` comes with a human's check.
    """
    language = LANGUAGES.get(row.file)
    if language is None:
        raise row.wrong(
            f"MMedBench's files bear the name of their language ({', '.join(LANGUAGES)}), not"
            f" {row.file!r}"
        )
    given = options(row)
    right = row.record.get("answer_idx")
    letters = right if isinstance(right, list) else row.text("answer_idx").split(",")
    return Question(
        row.id,
        "",
        row.text("question"),
        given,
        answer(letters, given, row),
        "mmedbench",
        language,
        rationale=row.optional_text("rationale"),
        rationale_checked=bool(row.record.get("human_check_passed")),
    )


def frenchmedmcqa(row: Row) -> Question:
    """FrenchMedMCQA: `answers` a to e, `correct_answers` a list of letters.

    The hub's rows have `answer_a` … and numbers.
    """
    if "answers" in row.record:
        given = options(row, "answers")
        letters = row.record.get("correct_answers") or []
    else:
        given = lettered([row.text(f"answer_{letter}") for letter in "abcde"], row)
        letters = ["ABCDE"[number] for number in row.record.get("correct_answers") or []]
    right = answer(letters, given, row)
    return Question(
        row.needed_identifier("id"),
        "",
        row.text("question"),
        given,
        right,
        "frenchmedmcqa",
        "fr",
        subject=row.optional_text("subject_name"),
    )


def igakuqa(row: Row) -> Question | None:
    """IgakuQA: `problem_text`, `choices`, `answer` a list of letters; no questions with images."""
    if row.record.get("text_only") is False or not row.record.get("choices"):
        return None
    given = lettered(row.record["choices"], row)
    right = row.record.get("answer")
    if not isinstance(right, list):
        raise row.wrong(f"key 'answer' must be a list of letters, not {jsonl.shown(right)}")
    return Question(
        row.needed_identifier("problem_id"),
        "",
        row.text("problem_text"),
        given,
        answer(right, given, row),
        "igakuqa",
        "ja",
    )


def headqa(row: Row) -> Question | None:
    """HEAD-QA: its JSON of exams, or the hub's rows.

    `qtext`, `answers` of `{"aid", "atext"}`, `ra`; questions with images are left out.

    The English translation is recognized by the file's name (`test_HEAD_EN.json`), by its
    `"language"`, or by the hub's configuration or folder `en`. Outer white space of texts
    is removed, as in the hub's rows, which lm-evaluation-harness reads.
    """
    if row.record.get("image"):
        return None
    answers = row.record.get("answers")
    if not isinstance(answers, list) or not all(
        isinstance(item, dict) and isinstance(item.get("atext"), str) for item in answers
    ):
        raise row.wrong("key 'answers' must be a list of {'aid', 'atext'}")
    given = lettered([item["atext"].strip() for item in answers], row)
    exam = row.optional_text("name")
    identity = f"{exam}:{row.record.get('qid')}" if exam else row.id
    right = place(row, "ra", len(given), first=1)
    return Question(
        identity,
        "",
        row.text("qtext").strip(),
        given,
        right,
        "headqa",
        _headqa_language(row),
        subject=row.optional_text("category"),
    )


def _headqa_language(row: Row) -> str:
    if "en" in re.split(r"[^a-z]+", row.file.lower()):
        return "en"
    language = row.record.get("language") or row.folder
    return "en" if language == "en" else "es"


def biomistral(row: Row) -> Question:
    """BioMistral's benchmark: `overall_test+prompt.json`, and `French-full.json` … by language.

    The latter have `*_translated` keys. The subject is the corpus.

    Only PubMedQA has a context. Its frozen few-shot examples (`few_shot_samples[1]` to `[3]`) are
    read by `biomistral_few_shot`.
    """
    language = LANGUAGES.get(row.file.split("-")[0], "en")
    suffix = "" if language == "en" else "_translated"
    given = options(row, f"options{suffix}")
    corpus = row.text("corpus_name")
    return Question(
        row.identifier("identifier") or row.id,
        row.optional_text(f"context{suffix}") if corpus == "PubMedQA" else "",
        row.text(f"question{suffix}"),
        given,
        answer([row.text("correct_answer_letter")], given, row),
        "biomistral",
        language,
        subject=corpus,
    )


def biomistral_few_shot(row: Row, triple: int) -> list[Question]:
    """Return a frozen triple (1, 2 or 3) of a record's few-shot examples, in English."""
    samples = row.record.get(f"few_shot_samples[{triple}]")
    if not isinstance(samples, list) or not samples:
        raise row.wrong(f"key 'few_shot_samples[{triple}]' must be a list of few-shot examples")
    found = []
    for number, sample in enumerate(samples, start=1):
        if not isinstance(sample, dict):
            raise row.wrong(
                f"few-shot example {number} must be an object, not {jsonl.shown(sample)}"
            )
        part = Row(sample, f"{row.where}, few-shot example {number}", row.file, number)
        given = options(part)
        context = part.optional_text("context")
        right = answer([part.text("correct_answer_letter")], given, part)
        found.append(Question(part.id, context, part.text("question"), given, right, "biomistral"))
    return found


BIOMISTRAL_FEW_SHOT = FixedFewShot(
    read=biomistral_few_shot,
    sets=(1, 2, 3),
    size=3,
    subject_key="corpus_name",
    description="BioMistral's files have three sets of three examples",
)
"""The frozen triples of BioMistral's files, one for each of its ten benchmarks."""
