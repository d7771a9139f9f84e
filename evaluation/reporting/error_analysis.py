"""Error analysis: the wrong answers in which a model was most confident."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.metrics import calibration
from evaluation.question_sets import jsonl
from evaluation.scoring import sample_log

NUM_ERRORS = 8


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """One sample that a model got wrong."""

    id: str
    prompt: str
    answer: str
    prediction: str
    confidence: float | None
    """Probability of the wrong answer among the options."""
    output: str
    """Generated text; empty if only likelihoods were compared."""


def most_confident_errors(
    folder: Path, task: str, summary: Mapping[str, Any], samples: Mapping[str, Mapping[str, Any]]
) -> list[WrongAnswer]:
    """Return at most `NUM_ERRORS` errors of a task: the most confident, then by id."""
    run = next(iter(summary.get("runs") or {}), "")
    path = folder / "prompts" / sample_log.file_name(task, run)
    if not path.exists():
        return []
    # answers that a judge scores are neither right nor wrong
    wrong = [_wrong(sample) for sample in samples.values() if not sample.get("correct", True)]
    chosen = sorted(wrong, key=lambda entry: (-(entry.confidence or 0.0), entry.id))[:NUM_ERRORS]
    prompt_of = prompts(path) if chosen else {}
    return [replace(entry, prompt=prompt_of.get(entry.id, "")) for entry in chosen]


def prompts(path: Path) -> dict[str, str]:
    """Read the prompt of each sample, by the sample's id.

    Raises:
        DataError: the file is missing, or a record is wrong.
    """
    return {
        jsonl.text(record, "id", where): jsonl.text(record, "prompt", where)
        for where, record in jsonl.records(path)
    }


def _wrong(sample: Mapping[str, Any]) -> WrongAnswer:
    confidence = None
    likeliest = sample.get("argmax") or sample.get("prediction")
    if sample.get("logprobs") and likeliest:
        confidence = calibration.probabilities(sample["logprobs"]).get(likeliest)
    prediction = sample.get("prediction") or (
        f"unparsed: {sample['top']!r}" if "top" in sample else "unparsed"
    )
    return WrongAnswer(
        sample["id"],
        "",
        sample.get("answer", ""),
        prediction,
        confidence,
        "\n———\n".join(sample.get("outputs", [])),
    )
