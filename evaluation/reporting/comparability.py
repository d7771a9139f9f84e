"""Whether a run was scored under the conditions of a published table."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from evaluation.protocols.protocol import Protocol
from evaluation.protocols.registry import get_protocol
from evaluation.question_sets import jsonl
from evaluation.reporting.published_results import PublishedTable
from evaluation.reporting.rationale_summaries import RationaleRun
from evaluation.reporting.report_inputs import ModelScores
from evaluation.tasks import task as task_files
from galen import manifest, recipe
from galen.errors import DataError, UsageError

_LOCATION = (
    "file",
    "reader",
    "fields",
    "test_split",
    "ids",
    "fewshot_source",
    "num_fewshot",
)
"""Keys of a task that may differ: where its data are, and what the protocol's settings record."""

_WEIGHTS = (".safetensors", ".bin", ".pt")


def different_settings(model: ModelScores | RationaleRun, published: PublishedTable) -> list[str]:
    """Return the settings in which a run differs from the protocols of a table.

    Empty if the run is under one of them.
    """
    if model.protocol not in published.protocols:
        return ["protocol"]
    by_shots = []
    for shots in published.protocols[model.protocol]:
        try:
            expected = get_protocol(model.protocol, num_fewshot=shots)
        except UsageError:
            continue
        by_shots.append(_different_keys(model.settings, expected))
    return min(by_shots, key=len, default=["protocol"])


def _different_keys(settings: dict[str, Any], expected: Protocol) -> list[str]:
    """Return the keys in which recorded settings differ from a protocol.

    A key that an older run lacks counts with its default. One that the protocol lacks differs
    unless it is empty.
    """
    values = json.loads(json.dumps(dataclasses.asdict(expected)))
    defaults = {
        entry.name: entry.default
        for entry in dataclasses.fields(Protocol)
        if entry.default is not dataclasses.MISSING
    }
    recorded = {**json.loads(json.dumps(defaults)), **settings}
    different = [key for key in values if recorded.get(key, values[key]) != values[key]]
    if "template" not in settings:
        different.append("template")
    further = [key for key in settings if key not in values and settings[key]]
    return different + further


def task_differences(model: ModelScores, task: str) -> list[str]:
    """Return the keys in which a run's task differs from the built-in one of its name.

    They are in the run's manifest, for example other few-shot examples, and in its results if they
    set something of the protocol. A run without a manifest has only the latter.
    """
    different = list(model.tasks[task].summary.get("settings") or ())
    built_in = _built_in(task)
    for key, value in _recorded_task(model, task).items():
        if key in built_in and key not in _LOCATION and built_in[key] != value:
            different.append(key)
    return list(dict.fromkeys(different))


def other_data_files(base: ModelScores, model: ModelScores, task: str) -> list[str]:
    """Return the names of a run's data files whose content the first run's files do not have.

    The SHA-256 of the files are in the runs' manifests; without one of these nothing is known.
    """
    expected = _recorded_task(base, task).get("files")
    actual = _recorded_task(model, task).get("files")
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return []
    return [name for name, digest in actual.items() if digest not in expected.values()]


def other_weights(first: ModelScores, second: ModelScores) -> bool:
    """Return whether two runs are of models with different weights.

    The SHA-256 of the files are in the runs' manifests; without one of these nothing is known.
    """
    return any(
        bool(before) and bool(after) and before != after
        for before, after in zip(_weights(first), _weights(second), strict=True)
    )


def _weights(run: ModelScores) -> list[dict[str, Any]]:
    """Return the hashes of the weights of a run's model and adapter."""
    config = _recorded(run, "config")
    result = []
    for key in ("model", "adapter"):
        record = config.get(key)
        files = record.get("files") if isinstance(record, dict) else None
        known = files if isinstance(files, dict) else {}
        result.append({name: known[name] for name in known if Path(name).suffix in _WEIGHTS})
    return result


def _built_in(task: str) -> dict[str, Any]:
    try:
        _, specification = task_files.load(task)
    except UsageError:
        return {}
    values: dict[str, Any] = json.loads(json.dumps(recipe.to_dict(specification)))
    return values


def _recorded_task(model: ModelScores, task: str) -> dict[str, Any]:
    """Return the task in a run's manifest; empty if there is none."""
    return _recorded(model, "config", "tasks", task)


def _recorded(model: ModelScores, *keys: str) -> dict[str, Any]:
    """Return what a run's manifest has under keys; empty if there is nothing."""
    path = model.folder / manifest.NAME
    try:
        record: Any = jsonl.tree(path)
    except (OSError, DataError):
        return {}
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record if isinstance(record, dict) else {}
