"""Ensembles of models scored on the same questions: the sum of their letters' probabilities.

BioMistral, section 4.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics import intervals
from evaluation.scoring.sample_log import SampleLog
from finetune.publishing.scores import read_results
from galen import manifest
from galen.atomic import atomic_folder
from galen.errors import DataError, UsageError


def write(folders: Sequence[Path], config: Mapping[str, Any], output: Path) -> str:
    """Write the ensemble's items and results as `evaluation/run.py` does, and return them as text.

    Args:
        folders: one scored model each.
        config: the recipe, for the manifest.
        output: folder of the result.

    Raises:
        UsageError: fewer than two folders.
        DataError: a folder has no results, or the models were not scored on the same questions in
            the same template.
    """
    if len(folders) < 2:
        raise UsageError("ensemble.scores: an ensemble needs the scores of two models or more")
    results = [read_results(folder) for folder in folders]
    names = [
        name for name, task in results[0]["tasks"].items() if task.get("kind") == "multiple_choice"
    ]
    if not names:
        raise DataError(
            f"{folders[0]} has no multiple-choice task; only letters' probabilities can be added up"
        )
    for folder, other in zip(folders[1:], results[1:], strict=True):
        if other["protocol"] != results[0]["protocol"]:
            raise DataError(
                f"{folder} was scored with the protocol {other['protocol']}, {folders[0]} with"
                f" {results[0]['protocol']}"
            )
    tasks: dict[str, Any] = {}
    inputs = [folder / "results.json" for folder in folders]
    with atomic_folder(output) as temporary:
        for name in names:
            runs = results[0]["tasks"][name].get("runs") or []
            by_run = []
            for file in [f"{name}@{run}.jsonl" for run in runs] or [f"{name}.jsonl"]:
                paths = [folder / "samples" / file for folder in folders]
                by_run.append(combine(name, paths))
                with SampleLog(temporary / "samples" / file) as log:
                    log.append(by_run[-1])
                inputs += paths
            tasks[name] = _summary(results[0]["tasks"][name], by_run)
        name = " + ".join(result["model"]["name"] for result in results)
        model = {
            "name": name,
            "path": ", ".join(str(result["model"]["path"]) for result in results),
            "adapter": None,
        }
        combined_results = {
            **results[0],
            "model": model,
            "tasks": tasks,
            "versions": manifest.versions(),
        }
        (temporary / "results.json").write_text(
            json.dumps(combined_results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest.write(
            temporary / manifest.NAME,
            stage="ensemble",
            inputs=inputs,
            config=config,
            outputs=written,
            counts={"models": len(folders)},
        )
    return "\n".join(_line(name, task) for name, task in tasks.items())


def _summary(task: dict[str, Any], by_run: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a task's accuracy entry for the results, each question's runs averaged."""
    correct = [
        sum(item["correct"] for item in runs) / len(runs) for runs in zip(*by_run, strict=True)
    ]
    accuracy = intervals.accuracy(correct) if len(by_run) == 1 else intervals.mean(correct)
    settings: dict[str, Any] = {
        key: task[key] for key in ("kind", "samples", "chance", "interval", "runs") if key in task
    }
    return {**settings, "metrics": {"accuracy": accuracy.as_dict()}}


def combine(task: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a task's ensemble items: log of the mean probability by letter, and the likeliest.

    Raises:
        DataError: the models were scored on different questions or options.
    """
    logs = [_items(path) for path in paths]
    if any("logprobs" not in item for log in logs for item in log.values()):
        raise DataError(
            f"task {task}: the protocol has written answers; only letters' probabilities can be"
            " added up"
        )
    combined = []
    for id_, item in logs[0].items():
        others = [log[id_] for log in logs if id_ in log and _same(log[id_], item)]
        if len(others) < len(logs):
            raise DataError(
                f"task {task}: the question {id_!r} is not the same in all of"
                f" {', '.join(map(str, paths))}"
            )
        probability = {
            letter: sum(math.exp(other["logprobs"][letter]) for other in others) / len(logs)
            for letter in item["logprobs"]
        }
        prediction = max(probability, key=lambda letter: probability[letter])
        logprobs = {
            letter: math.log(value) if value > 0 else -math.inf
            for letter, value in probability.items()
        }
        right = prediction == item["answer"]
        combined.append(
            {
                "id": id_,
                "answer": item["answer"],
                "prediction": prediction,
                "correct": right,
                "logprobs": logprobs,
            }
        )
    if any(len(log) != len(combined) for log in logs):
        raise DataError(
            f"task {task}: the models were scored on {', '.join(str(len(log)) for log in logs)}"
            " questions; score them on the same"
        )
    return combined


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return bool(
        first["logprobs"].keys() == second["logprobs"].keys()
        and first["answer"] == second["answer"]
    )


def _items(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}; score the model on this task, too")
    with SampleLog(path) as log:
        return log.samples


def _line(name: str, task: dict[str, Any]) -> str:
    accuracy = task["metrics"]["accuracy"]
    return (
        f"{name}  {task['samples']} samples  accuracy {accuracy['value']:.4g}"
        f"  {accuracy['low']:.4g} to {accuracy['high']:.4g}"
    )
