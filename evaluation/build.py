"""Build benchmarks with a language model: rationales for answers, and translated questions.

    galen build-benchmark rationales --reader headqa --questions data/headqa/train_HEAD.json \\
        --output headqa_rationales.jsonl --check checks.csv \\
        --base-url http://localhost:8000/v1 --model-name NAME
    galen build-benchmark translate --to French --reader medqa \\
        --questions data/medqa/test.jsonl --output medqa_fr.jsonl --local-model DIR

The output has Galen's own layout (`reader: galen`) with the provenance of each item: model,
instruction, tries. A rationale is accepted if another request, which contains question and
rationale but not the answer, gives the right answer; a translation if it has the same options,
numbers and placeholders. Items that fail all tries are in OUTPUT.rejected.jsonl with the reasons.
Each item is written at once: after an interruption, the same command resumes.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation import question_sets
from evaluation.chat_models import local_chat
from evaluation.chat_models.local_chat import Chat
from evaluation.prompts.template import lines
from evaluation.question_sets import question
from evaluation.question_sets.multilingual import LANGUAGES
from evaluation.question_sets.question import Question
from evaluation.reporting import sheet
from evaluation.scoring import answer_extraction
from evaluation.scoring.sample_log import SampleLog
from galen import cli, lock, run_folder
from galen.errors import UsageError
from galen.progress import Progress
from galen.run_identity import Identity

logger = logging.getLogger(__name__)

EXPLAIN = (
    "Here is a medical examination question with its correct answer. Explain in {language}, step by"
    " step and in at most 200 words, why this answer is right and the other options are not. Do not"
    " mention that the answer was given.\n\n{question}\n\nCorrect answer: {answer}"
)
SOLVE = (
    "Answer the medical question with the help of the explanation alone. Reply with one line: The"
    " answer is: X, where X is the letter, or the letters with"
    " commas.\n\n{question}\n\nExplanation:\n{rationale}"
)
TRANSLATE = (
    "Translate this medical examination question to {language}. Keep option letters, numbers, units"
    ' and everything in braces as they are. Reply with JSON only: {{"context": …, "question": …,'
    ' "options": {{letter: text}}}}.\n\n{record}'
)
Attempt = Callable[[Question, int], "tuple[Question | None, str]"]
"""Returns the new item on its n-th try, or None and the reason."""


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(argv)
    for name in ("tries", "limit"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1")
    questions = question.sample_questions(
        question_sets.read(options.reader, options.questions), options.limit
    )
    if options.what == "translate" and options.to not in LANGUAGES:
        raise UsageError(f"--to must be one of {', '.join(LANGUAGES)}, not {options.to!r}")
    chat = local_chat.chosen(options)
    if chat is None:
        raise UsageError("no model is named: give --base-url and --model-name, or --local-model")
    attempt: Attempt = functools.partial(explained, chat)
    instruction = EXPLAIN + SOLVE
    if options.what == "translate":
        attempt = functools.partial(translated, options.to, chat)
        instruction = TRANSLATE + options.to
    digest = hashlib.sha256(instruction.encode()).hexdigest()[:16]
    provenance = {"model": chat.model, "instruction": digest, "questions": options.questions}
    accepted = _build(questions, attempt, options.tries, options.output, provenance)
    if options.check:
        write_check_sheet(options.check, questions, accepted)
        logger.info(f"sheet for the human check: {options.check}")
    print(f"{len(accepted)} of {len(questions)} items in {options.output}")


def explained(chat: Chat, item: Question, number: int) -> tuple[Question | None, str]:
    """Return the question with a rationale from which its answer can be recovered.

    Returns None and the reason if the try fails.
    """
    names = {code: name for name, code in LANGUAGES.items()}
    shown = _shown(item)
    message = EXPLAIN.format(
        language=names.get(item.language, "English"), question=shown, answer=item.answer
    )
    rationale = chat.ask(message, temperature=0.7 if number else 0.0, seed=number).strip()
    if not rationale:
        return None, "empty rationale"
    solution = chat.ask(SOLVE.format(question=shown, rationale=rationale), max_tokens=64)
    answers = answer_extraction.extract(
        solution, item.options, allows_several=len(item.answers) > 1
    )
    if answers is None or frozenset(answers) != item.answers:
        actual = ",".join(answers) if answers else "no answer"
        return None, f"the rationale leads to {actual}, not to {item.answer}"
    return dataclasses.replace(item, rationale=rationale), ""


def translated(
    language: str, chat: Chat, item: Question, number: int
) -> tuple[Question | None, str]:
    """Return the question in another language, with the same options, numbers and placeholders.

    Returns None and the reason if the try fails.
    """
    record = {"context": item.context, "question": item.question, "options": item.options}
    message = TRANSLATE.format(language=language, record=json.dumps(record, ensure_ascii=False))
    reply = chat.ask(message, temperature=0.7 if number else 0.0, seed=number, max_tokens=4096)
    try:
        translation = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        options = translation["options"]
        texts = [translation["context"], translation["question"], *options.values()]
    except (ValueError, KeyError, AttributeError):
        return None, "the reply is not the requested JSON"
    if not all(isinstance(text, str) for text in texts) or not translation["question"].strip():
        return None, "a text is missing"
    if list(options) != list(item.options) or not all(text.strip() for text in options.values()):
        return None, f"the options are {', '.join(options)}, not {', '.join(item.options)}"
    originals = [item.context, item.question, *item.options.values()]
    for original, text in zip(originals, texts, strict=True):
        if problem := _difference(original, text):
            return None, problem
    translated_item = dataclasses.replace(
        item,
        context=translation["context"],
        question=translation["question"],
        options=options,
        language=LANGUAGES[language],
        rationale="",
    )
    return translated_item, ""


def _difference(original: str, text: str) -> str:
    """Return in what a text differs from its translation that should be equal; empty if nothing."""
    if bool(original.strip()) != bool(text.strip()):
        return "a text is missing"
    before = _numbers(original)
    after = _numbers(text)
    if before != after:
        return f"the numbers differ: {sorted(before)} became {sorted(after)}"
    if _placeholders(original) != _placeholders(text):
        return "the placeholders differ"
    return ""


def write_check_sheet(
    path: Path, questions: list[Question], accepted: dict[str, dict[str, Any]]
) -> None:
    """Write a sheet for the human check, keeping entries of an existing one.

    It has the results beside their sources, and columns for verdict and remark.
    """
    rows = []
    for item in questions:
        if item.id in accepted:
            record = accepted[item.id]
            made = Question(
                item.id, record["context"], record["question"], record["options"], record["answer"]
            )
            rows.append([item.id, _shown(item), _shown(made), record["rationale"]])
    sheet.write(path, ["id", "original", "made", "rationale"], rows, ["passed", "remark"])


def _build(
    questions: list[Question],
    attempt: Attempt,
    tries: int,
    output: Path,
    provenance: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Write the items that are missing; return the accepted ones by id."""
    rejected_path = output.with_name(f"{output.name.removesuffix('.jsonl')}.rejected.jsonl")
    with (
        lock.hold(output),
        SampleLog(output) as accepted,
        SampleLog(rejected_path) as rejected,
        Progress("build", total=len(questions), unit="items") as progress,
    ):
        for record in (*accepted.samples.values(), *rejected.samples.values()):
            recorded = record.get("provenance", {})
            earlier = Identity({key: recorded.get(key) for key in provenance})
            if differences := Identity(provenance).differences(earlier):
                raise run_folder.conflict(output, differences)
        for item in questions:
            if item.id not in accepted.samples and item.id not in rejected.samples:
                new, reasons = _first_success(item, attempt, tries)
                if new is None:
                    record = {"id": item.id, "reasons": reasons, "provenance": provenance}
                    rejected.append([record])
                else:
                    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    own = {**provenance, "tries": len(reasons) + 1, "created": created}
                    accepted.append([{**dataclasses.asdict(new), "provenance": own}])
            progress.update()
        return dict(accepted.samples)


def _first_success(
    item: Question, attempt: Attempt, tries: int
) -> tuple[Question | None, list[str]]:
    """Return the result of the first successful try, or None, and the reasons of failed tries."""
    reasons: list[str] = []
    for number in range(tries):
        new, reason = attempt(item, number)
        if new is not None:
            return new, reasons
        reasons.append(reason)
    return None, reasons


def _shown(item: Question) -> str:
    return "\n".join(filter(None, [item.context, item.question, lines(item)]))


def _numbers(text: str) -> Counter[str]:
    """Return a text's numbers, decimal commas as points, without thousands separators."""
    return Counter(
        re.sub(r"[ \u202f](?=\d{3})", "", number).replace(",", ".")
        for number in re.findall(r"\d+(?:[.,]\d+)*", text)
    )


def _placeholders(text: str) -> Counter[str]:
    return Counter(re.findall(r"\{[^{}]*\}", text))


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("what", choices=["rationales", "translate"], help="what to build")
    parser.add_argument(
        "--reader",
        required=True,
        help=f"layout of the questions: {', '.join(question_sets.READERS)}",
    )
    parser.add_argument(
        "--questions",
        required=True,
        metavar="FILE",
        help="file or folder of the questions, or hub:…",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSONL in Galen's own layout"
    )
    local_chat.add_options(parser, "the model")
    parser.add_argument(
        "--to",
        default="",
        metavar="LANGUAGE",
        help=f"with translate: one of {', '.join(LANGUAGES)}",
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=3,
        metavar="N",
        help="tries for an item before it is rejected (default: 3)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N questions, chosen by a hash of their ids"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="write a sheet for the human check; entries of an existing one are kept",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
