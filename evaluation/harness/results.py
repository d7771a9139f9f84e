"""Results of a benchmark: the harness' own, Galen's with intervals, and the harness' files.

The harness evaluates recorded responses, so that filters, aggregation and groups are its own.
"""

import contextlib
import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.harness import benchmark as benchmarks
from evaluation.harness import metrics, task_index
from evaluation.harness.benchmark import (
    Benchmark,
    ChatFormat,
    Document,
    Evaluated,
    messages,
    quiet,
)
from evaluation.metrics import generated_answers, intervals
from evaluation.metrics.intervals import Estimate
from galen.atomic import remove
from galen.errors import DataError

logger = logging.getLogger(__name__)

Sample = Mapping[str, Any]

_BOOTSTRAP_ITERATIONS = 1000
"""Of the harness' standard errors of metrics that are no means."""


def evaluate(
    benchmark: Benchmark,
    documents: Sequence[Document],
    samples: Sequence[Sample],
    chat: ChatFormat,
) -> dict[str, Any]:
    """Return the results as `lm_eval.evaluate` gives them for the recorded responses.

    Args:
        benchmark: the task or group.
        documents: what was scored.
        samples: the scored sample of each document.
        chat: how prompts became conversations.
    """
    cached = benchmark.evaluated
    if cached is not None and cached.samples is samples and cached.chat == chat:
        return cached.results
    from lm_eval.evaluator import evaluate as evaluate_harness

    from evaluation.harness.recorded_lm import RecordedLM

    responses = {
        (document.task, document.number): sample["responses"]
        for document, sample in zip(documents, samples, strict=True)
    }
    limit = max(Counter(document.task for document in documents).values())
    benchmark.seed()
    with messages(benchmark.name), quiet(), _one_process():
        results: dict[str, Any] = evaluate_harness(
            lm=RecordedLM(responses, benchmark.conversation),
            task_dict={"tasks": benchmark.tasks, "groups": benchmark.groups},
            limit=limit,
            bootstrap_iters=_BOOTSTRAP_ITERATIONS,
            log_samples=True,
            system_instruction=chat.system,
            apply_chat_template=chat.template,
            fewshot_as_multiturn=chat.multiturn,
        )
    benchmark.evaluated = Evaluated(samples, chat, results)
    return results


def entry(benchmark: Benchmark, results: Mapping[str, Any], samples: Sequence[Sample]) -> Any:
    """Return the metrics and other keys of the benchmark's entry in `results.json`.

    Args:
        benchmark: the task or group.
        results: the harness' results.
        samples: the scored samples.
    """
    by_task = {name: _values(results["samples"][name]) for name in benchmark.tasks}
    estimates = {name: _task_estimates(benchmark, name, by_task[name]) for name in benchmark.tasks}
    primary = benchmark.primary
    content: dict[str, Any] = {}
    if benchmark.group is None:
        of_benchmark = estimates[benchmark.name]
    else:
        groups = {
            name: _group_estimates(group, results, by_task)
            for name, group in benchmark.groups.items()
        }
        of_benchmark = groups.pop(benchmark.name)
        content["by_subject"] = _by_subject(samples)
        content["tasks"] = {
            name: {"samples": len(results["samples"][name]), "metrics": _plain(of_task)}
            for name, of_task in estimates.items()
        }
        if groups:
            content["groups"] = {name: _plain(of_group) for name, of_group in groups.items()}
    name = primary.name
    by_scores = metrics.primary_estimate(metrics.scores_of(samples), primary.aggregation)
    value = of_benchmark[name].value if name in of_benchmark else math.nan
    if not math.isclose(by_scores.value, value, rel_tol=1e-6, abs_tol=1e-9):
        # the metric is no function of one value per sample: their mean is compared instead
        has_metric = benchmark.group is None or benchmark.group.has_aggregation
        name = f"{name}_of_samples" if has_metric else "mean_of_tasks"
    of_benchmark[name] = by_scores
    of_benchmark |= generated_answers.length_estimates([samples])
    return {
        "metrics": _plain(of_benchmark),
        "interval": "95 %, Wilson (proportions) or bootstrap over documents",
        "primary_metric": name,
        "aggregation": primary.aggregation,
        "lower_is_better": primary.lower_is_better,
        "settings": {
            "num_fewshot": {name: results["n-shot"][name] for name in benchmark.tasks},
            "fewshot_seed": benchmark.fewshot_seed,
            "definitions": benchmark.definition()["definitions"],
        },
        **content,
    }


def write(
    output: Path,
    benchmark: Benchmark,
    results: Mapping[str, Any],
    model: Mapping[str, str],
    chat: ChatFormat,
) -> list[Path]:
    """Write `results_*.json` and `samples_*.jsonl` as the harness does; return the files.

    Args:
        output: folder of the benchmark's files, which replace those of an earlier attempt.
        benchmark: the task or group.
        results: the harness' results.
        model: keys of the harness' `config`, with the model's folder as `pretrained`.
        chat: how prompts became conversations.

    Raises:
        DataError: a file cannot be written.
    """
    from lm_eval.loggers import EvaluationTracker

    counts = results["n-samples"].values()
    is_limited = any(count["effective"] < count["original"] for count in counts)
    limit = max(count["effective"] for count in counts) if is_limited else None
    remove(output)
    tracker = EvaluationTracker(output_path=str(output))
    tracker.general_config_tracker.log_experiment_args(
        model_source="galen",
        model_args=f"pretrained={model['pretrained']}",
        system_instruction=chat.system,
        chat_template=benchmark.conversation.template if benchmark.conversation else None,
        fewshot_as_multiturn=chat.multiturn,
    )
    content = {key: value for key, value in results.items() if key != "samples"}
    content["config"] = {
        "model": "galen",
        "model_args": dict(model),
        "limit": limit,
        "bootstrap_iters": _BOOTSTRAP_ITERATIONS,
        "random_seed": benchmarks.RANDOM_SEED,
        "numpy_seed": benchmarks.FEWSHOT_SEED,
        "fewshot_seed": benchmark.fewshot_seed,
    }
    content["lm_eval_version"] = task_index.version()
    tracker.save_results_aggregated(results=content, samples=results["samples"])
    for name in benchmark.tasks:
        tracker.save_results_samples(task_name=name, samples=results["samples"][name])
    files = sorted(path for path in output.rglob("*") if path.is_file())
    if len(files) != 1 + len(benchmark.tasks):
        # the harness only logs what went wrong
        raise DataError(f"{output}: the harness could not write its files; see the log above")
    return files


def _values(samples: Sequence[Mapping[str, Any]]) -> dict[metrics.Key, list[Any]]:
    """Return the values of each metric and filter, of the documents that have one."""
    values: dict[metrics.Key, list[Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            values.setdefault((metric, sample["filter"]), []).append(sample[metric])
    return values


def _task_estimates(
    benchmark: Benchmark, name: str, values: Mapping[metrics.Key, list[Any]]
) -> dict[str, Estimate]:
    """Return the metrics of a task."""
    aggregation = benchmark.tasks[name].aggregation()
    estimates = {}
    for (metric, filter_name), items in values.items():
        function = aggregation.get(metric, np.mean)
        estimate = metrics.estimate(metric, items, function)
        if estimate is None:
            logger.warning(f"lm_eval:{name}: the metric {metric} is not a number and is left out")
        else:
            estimates[metrics.metric_name(metric, filter_name)] = estimate
    return estimates


def _group_estimates(
    group: Any, results: Mapping[str, Any], by_task: Mapping[str, Mapping[metrics.Key, list[Any]]]
) -> dict[str, Estimate]:
    """Return the aggregated metrics of a group, as the harness aggregates them."""
    tasks = [task.task_name for task in group.get_all_tasks()]
    of_group = results["results"][group.name]
    estimates = {}
    for aggregate in group.aggregate_metric_list or []:
        for key, value in of_group.items():
            metric, _, filter_name = key.partition(",")
            if metric != aggregate.metric or not filter_name:
                continue
            of_tasks = [by_task[name].get((metric, filter_name), []) for name in tasks]
            estimate = _group_estimate(of_tasks, aggregate.weight_by_size)
            if not math.isclose(estimate.value, value, rel_tol=1e-9, abs_tol=1e-12):
                # no mean over documents: the harness' standard error
                error = metrics.as_number(of_group.get(f"{metric}_stderr,{filter_name}"))
                half = 1.96 * (error or 0.0)
                estimate = Estimate(value, value - half, value + half)
            estimates[metrics.metric_name(metric, filter_name)] = estimate
    return estimates


def _group_estimate(of_tasks: Sequence[Sequence[Any]], weight_by_size: bool) -> Estimate:
    """Return the mean over the documents of several tasks, or over the means of the tasks.

    NaN where documents have no numbers.
    """
    numbers = [[metrics.as_number(item) for item in items] for items in of_tasks if items]
    values = np.array(list(itertools.chain.from_iterable(numbers)), dtype=float)
    if not np.isfinite(values).all():
        return Estimate(math.nan, math.nan, math.nan)
    if weight_by_size:
        return metrics.mean(values)
    starts = np.cumsum([0, *map(len, numbers)])
    groups = [list(range(start, end)) for start, end in itertools.pairwise(starts)]
    return intervals.macro_mean(values, groups)


def _by_subject(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the mean score of each task of a group."""
    scores: dict[str, list[float]] = {}
    for sample in samples:
        scores.setdefault(sample["subject"], []).append(sample["score"])
    return {
        name: {"samples": len(values), **metrics.mean(np.array(values)).as_dict()}
        for name, values in scores.items()
    }


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Keep the harness' bootstrap from starting processes of its own."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
