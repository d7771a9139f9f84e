"""Score the rationales that a model generated.

BLEU-1, ROUGE-1 (also as MMedLM computes them), BERTScore, a language model as judge, and a sheet
for human judges.

    galen rationales scores/base --task mmedbench_french \\
        --output rationales.jsonl --encoder ENCODER
    galen rationales scores/base --task mmedbench_french \\
        --output rationales.jsonl --sheet sheet.csv --judges 3 \\
        --base-url http://localhost:8000/v1 --model-name NAME

RUN is an output folder of `galen evaluate` under the protocol mmedbench_rationale. Only samples
whose reference rationale was checked by a human are compared, as in the paper. Each sample is
written at once: after an interruption, the same command resumes. OUTPUT.summary.json has the
metrics of each language; `galen report --rationales` shows them beside the published ones. The
sheet shows question, reference and rationale without the model's name; `galen agreement` reads it
after the judges have filled it in.
"""

import argparse
import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.chat_models import local_chat
from evaluation.chat_models.local_chat import Chat
from evaluation.metrics import intervals, text_metrics
from evaluation.question_sets import jsonl
from evaluation.reporting import error_analysis, sheet
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from evaluation.scoring.results_schema import Results, ScoredRationale, check
from evaluation.scoring.sample_log import SampleLog, parts
from evaluation.scoring.task_type import TRUNCATED_PROMPTS
from galen import cli, lock
from galen.atomic import write_text
from galen.errors import DataError, UsageError
from galen.progress import Progress

logger = logging.getLogger(__name__)

JUDGE = (
    "Rate how well the candidate rationale explains the answer to a medical question, compared with"
    " the reference rationale: 1 (wrong or no explanation) to 5 (as correct and complete as the"
    " reference). Judge medical correctness first, then completeness; ignore style and"
    " length.\n\nQuestion:\n{prompt}\n\nReference rationale:\n{reference}\n\nCandidate"
    " rationale:\n{candidate}\n\nReply with one line: Rating: N"
)


def _bleu1(candidate: str, reference: str, language: str) -> float:
    return text_metrics.bleu1([candidate], [reference], language)


_TEXT_METRICS: dict[str, Callable[[str, str, str], float]] = {
    "bleu1": _bleu1,
    "rouge1": text_metrics.rouge1,
    "bleu1_mmedlm": text_metrics.bleu1_mmedlm,
    "rouge1_mmedlm": text_metrics.rouge1_mmedlm,
}
"""Metrics of a candidate, a reference and a language."""
_TITLES = {
    "bleu1_corpus": "BLEU-1 (corpus)",
    "rouge1": "ROUGE-1",
    "bleu1_mmedlm": "BLEU-1 (MMedLM: mean of texts)",
    "rouge1_mmedlm": "ROUGE-1 (MMedLM: different words)",
    "bertscore": "BERTScore",
    "judge": "judge",
}
_TRIES = 3
"""Requests to the judge until it gives a rating."""


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(argv)
    if options.judges < 1:
        raise UsageError("--judges must be at least 1")
    samples = read_samples(options.run, options.task)
    judge = local_chat.chosen(options)
    encoder = None
    if options.encoder:
        encoder = text_metrics.BertScore(options.encoder, options.encoder_layer)
    settings = [str(options.encoder), options.encoder_layer, judge.model if judge else None]
    with (
        lock.hold(options.output),
        SampleLog(options.output) as log,
        Progress("judge", total=len(samples) - len(log.samples), unit="rationales") as progress,
    ):
        for sample in samples:
            signature = _signature(sample, settings)
            if sample["id"] not in log.samples:
                scores = score(sample, encoder, judge)
                progress.update(log.append([{**scores, "of": signature}]))
            elif log.samples[sample["id"]].get("of") != signature:
                raise UsageError(
                    f"{options.output} holds scores of another run, encoder or judge; choose"
                    " another --output"
                )
        records = [log.samples[sample["id"]] for sample in samples]
    if options.sheet:
        write_sheet(options.sheet, samples, options.judges)
        logger.info(f"rating sheet: {options.sheet}")
    languages = {
        language: _summary(group, language)
        for language, group in _by_language(samples, records).items()
    }
    for language, summary in languages.items():
        print(_line(language, summary))
    summary_path = options.output.with_name(f"{options.output.name}.summary.json")
    _write_summary(summary_path, options.run, options.task, languages)


def _signature(sample: dict[str, Any], settings: list[Any]) -> str:
    """Return a hash of what decides the scores of a sample."""
    content = json.dumps([sample["candidate"], sample["rationale"], *settings, *_TEXT_METRICS])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _summary(group: list[tuple[dict[str, Any], dict[str, Any]]], language: str) -> dict[str, Any]:
    """Return the metrics of a language: corpus BLEU-1, means of the others with 95 % intervals."""
    candidates = [sample["candidate"] for sample, _ in group]
    references = [sample["rationale"] for sample, _ in group]
    corpus = text_metrics.bleu1(candidates, references, language)
    metrics: dict[str, Any] = {"bleu1_corpus": {"value": corpus}}
    for name in group[0][1]["metrics"]:
        if name != "bleu1":
            values = [record["metrics"][name] for _, record in group]
            metrics[name] = intervals.mean(values).as_dict()
    return {"rationales": len(group), "metrics": metrics}


def _line(language: str, summary: dict[str, Any]) -> str:
    """Return the metrics of a language in one line."""
    fields = [f"{language}: {summary['rationales']} rationales"]
    for name, estimate in summary["metrics"].items():
        fields.append(f"{_TITLES.get(name, name)} {estimate['value']:.2f}")
    return ", ".join(fields)


def _write_summary(path: Path, run: Path, task: str, languages: dict[str, dict[str, Any]]) -> None:
    """Write the metrics of each language, with the model and the conditions of the run."""
    results_path = run / "results.json"
    if not results_path.is_file():
        logger.warning(f"{run} has no results.json: {path.name} is not written")
        return
    results = jsonl.tree(results_path)
    check(Results, results, results_path, " is not a results file of `galen evaluate`")
    scores = results["tasks"].get(task, {})
    summary = {
        "model": results["model"]["name"],
        "protocol": results["protocol"],
        "settings": results.get("settings", {}),
        "task": task,
        "samples": scores.get("samples"),
        TRUNCATED_PROMPTS: scores.get(TRUNCATED_PROMPTS, 0),
        "languages": languages,
    }
    write_text(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def read_samples(run: Path, task: str) -> list[dict[str, Any]]:
    """Return a run's samples that have a checked reference rationale.

    Each has the `prompt` and the generated rationale, `candidate`.

    Raises:
        DataError: there are none.
    """
    path = run / "samples" / f"{task}.jsonl"
    prompts_path = run / "prompts" / f"{task}.jsonl"
    if not prompts_path.is_file():
        existing = ", ".join(sorted(file.stem for file in prompts_path.parent.glob("*.jsonl")))
        hint = f"it has {existing}" if existing else "was it scored by `galen evaluate`?"
        raise DataError(f"{run} has no task {task}; {hint}")
    prompts = error_analysis.prompts(prompts_path)
    samples = []
    for file in parts(path) or [path]:
        for where, sample in jsonl.records(file):
            if "rationale" not in sample or not sample.get("outputs"):
                continue
            check(ScoredRationale, sample, where, ": not a scored sample")
            if sample["id"] not in prompts:
                raise DataError(
                    f"{where}: the sample {jsonl.shown(sample['id'])} has no prompt in"
                    f" {prompts_path.parent}; score the model again"
                )
            details = {
                "candidate": _rationale(sample["outputs"][0]),
                "prompt": prompts[sample["id"]],
                "language": sample.get("language", "en"),
            }
            samples.append({**sample, **details})
    if not samples:
        raise DataError(
            f"{path} holds no sample with a checked reference rationale; score MMedBench with"
            " --protocol mmedbench_rationale"
        )
    return sorted(samples, key=lambda sample: sample["id"])


def _rationale(output: str) -> str:
    """Return the rationale in an answer of MMedBench's template, without the model's thinking."""
    answer, _ = strip_thinking(output)
    return answer.split("###Answer:")[0].replace("###Rationale:", "").strip()


def score(
    sample: dict[str, Any], encoder: text_metrics.BertScore | None, judge: Chat | None
) -> dict[str, Any]:
    """Return `{"id", "metrics"}` of one rationale, and the judge's reply."""
    candidate = sample["candidate"]
    reference = sample["rationale"]
    language = sample["language"]
    metrics = {
        name: metric(candidate, reference, language) for name, metric in _TEXT_METRICS.items()
    }
    if encoder:
        metrics["bertscore"] = encoder.f1(candidate, reference)
    record: dict[str, Any] = {"id": sample["id"], "metrics": metrics}
    if judge:
        message = JUDGE.format(prompt=sample["prompt"], reference=reference, candidate=candidate)
        rating, reply = _rating(sample["id"], judge, message)
        metrics["judge"] = rating
        record |= {"reply": reply, "judge": judge.model}
    return record


def _rating(id_: str, judge: Chat, message: str) -> tuple[float, str]:
    """Return the judge's rating of a sample and its reply.

    Raises:
        DataError: the judge gives no rating.
    """
    reply = ""
    for number in range(_TRIES):
        reply = judge.ask(message, temperature=0.7 if number else 0.0, seed=number, max_tokens=64)
        rating = re.search(r"rating\W*([1-5])\b", reply, re.IGNORECASE)
        rating = rating or re.fullmatch(r"\W*([1-5])\W*", reply)
        if rating:
            return float(rating[1]), reply
    raise DataError(
        f"sample {id_}: the judge gives no rating from 1 to 5 in {_TRIES} tries; its last reply is"
        f" {reply[:100]!r}"
    )


def write_sheet(path: Path, samples: list[dict[str, Any]], judges: int) -> None:
    """Write a sheet for ratings from 1 to 5, a column per judge, keeping existing ratings."""
    rows = [
        [sample["id"], sample["prompt"], sample["rationale"], sample["candidate"]]
        for sample in samples
    ]
    sheet.write(
        path,
        ["id", "question", "reference", "rationale"],
        rows,
        [f"judge{number}" for number in range(1, judges + 1)],
    )


def _by_language(
    samples: list[dict[str, Any]], records: list[dict[str, Any]]
) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    groups = defaultdict(list)
    for sample, record in zip(samples, records, strict=True):
        groups[sample["language"]].append((sample, record))
    return dict(sorted(groups.items()))


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of `galen evaluate`")
    parser.add_argument(
        "--task", required=True, metavar="NAME", help="the task whose rationales are judged"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="metrics of each sample, as JSONL",
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="DIR",
        help="Hugging Face encoder for BERTScore (default: no BERTScore)",
    )
    parser.add_argument(
        "--encoder-layer",
        type=int,
        metavar="N",
        help="hidden states to compare (default: the last)",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write a rating sheet for human judges; ratings in an existing one are kept",
    )
    parser.add_argument(
        "--judges",
        type=int,
        default=2,
        metavar="N",
        help="columns for judges in the sheet (default: 2)",
    )
    local_chat.add_options(parser, "a judge")
    return parser


if __name__ == "__main__":
    cli.run(main)
