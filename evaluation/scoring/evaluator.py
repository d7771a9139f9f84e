"""Evaluation of one model on all tasks, by one process or by several that share the work.

Samples first, then results and manifest.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.backends import backend_loading, request_log
from evaluation.backends.base import Backend, Batching
from evaluation.backends.endpoint import Endpoint
from evaluation.backends.openai_backend import OpenAIBackend
from evaluation.chat_models import conversation
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import contamination
from evaluation.prompts.registry import get_template
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.scoring import (
    barrier,
    finished_run,
    model_settings,
    option_orders,
    run_task,
    task_types,
)
from evaluation.scoring.option_orders import OptionOrders
from evaluation.scoring.sample_log import SampleLog, file_name, parts
from evaluation.tasks.task import Task
from galen import manifest, run_folder
from galen.atomic import write_text
from galen.errors import DataError
from galen.run_identity import Identity

_RECORDED = ("chat", "sampling", "endpoint", "device")
"""Keys of the results that are known once the model is loaded."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Settings of the evaluation of one model."""

    model: Path
    output: Path
    name: str
    adapter: Path | None
    protocol_name: str
    protocol: Protocol
    tasks: dict[str, Task]
    max_batch_tokens: int | None
    dtype: str | None
    device: str | None
    backend: str
    endpoint: Endpoint | None
    tensor_parallel: int
    contaminated: contamination.Contaminated | None
    orders: dict[str, OptionOrders]
    """The questions of each task with options in further orders."""
    configuration: dict[str, Any]
    """The configuration that the output folder is bound to.

    Empty in a process that another one of this machine has started.
    """
    files: list[Path]
    recipe: str
    """The recipe as YAML, written beside the results."""


@dataclass(frozen=True, slots=True)
class _TaskLog:
    """Where the samples of one run of a task are."""

    task: str
    run: int
    order: int
    """Number of the options' order; 0 is the original one."""
    path: Path


def claim(plan: Plan, rank: int) -> None:
    """Bind the output folder; the other processes wait until the first one has done it."""
    if rank:
        barrier.wait_for_file(plan.output / run_folder.CONFIGURATION)
    run_folder.bind(plan.output, Identity(plan.configuration, may_change=("model.name",)))


def evaluate(
    plan: Plan,
    samples: dict[str, list[Any]],
    examples: dict[str, dict[int, FewShotExamples]],
    rank: int,
    of: int,
    check: Callable[[], None],
) -> dict[str, Any] | None:
    """Score the missing samples and return the results; None in all processes but the first.

    Args:
        plan: settings.
        samples: questions or documents of each task.
        examples: few-shot examples of each task by run.
        rank: this process' number.
        of: number of processes.
        check: called while the first process waits for the others; it raises when one has failed.
    """
    finished = plan.output / finished_run.RESULTS
    if finished.exists() and (plan.output / manifest.NAME).exists():
        if rank:
            return None
        logger.info(f"{plan.output} is already complete")
        results = finished_run.read(plan.output, plan.name, plan.recipe)
        if plan.contaminated is None:
            return results
        existing = {key: results[key] for key in _RECORDED if key in results}
        return _write_results(plan, samples, existing, manifest.read(plan.output)["seconds"])
    started = time.monotonic()
    backend = _load_backend(plan, rank)
    asked = conversation.create(plan.protocol, backend.tokenizer)
    if isinstance(backend, OpenAIBackend):
        _log_estimate(plan, samples, examples, backend, asked)
    for log in _logs(plan):
        _score(plan, log, samples[log.task], examples[log.task][log.run], backend, asked, rank, of)
    if rank:
        return None
    if of > 1:
        _wait_for_others(plan, samples, check)
    record = _record(plan, backend, asked)
    return _write_results(plan, samples, record, time.monotonic() - started)


def _record(plan: Plan, backend: Backend, asked: Conversation) -> dict[str, Any]:
    """Return the keys of the results that are known once the model has been asked."""
    record: dict[str, Any] = {"device": {"device": str(backend.device), "dtype": backend.dtype}}
    if plan.protocol.chat_template != conversation.NO_TEMPLATE:
        record["chat"] = asked.record()
    if plan.protocol.scoring == "generation":
        record["sampling"] = model_settings.sampling(plan.protocol)
    if isinstance(backend, OpenAIBackend):
        record["endpoint"] = backend.record()
    return record


def _load_backend(plan: Plan, rank: int) -> Backend:
    """Load the model; the first process warns of a missing token of the prompt template."""
    if plan.endpoint is not None:
        return _backend(plan)
    logger.info(f"loading the model {plan.model}")
    started = time.monotonic()
    backend = _backend(plan)
    logger.info(
        f"{plan.model} on {backend.device} in {backend.dtype}, loaded in"
        f" {time.monotonic() - started:.0f} s"
    )
    token = get_template(plan.protocol.template).required_token
    if not rank and token and token not in backend.tokenizer.get_vocab():
        logger.warning(
            f"this tokenizer has no {token}; {plan.protocol_name} is for models that were"
            " fine-tuned with it"
        )
    return backend


def _score(
    plan: Plan,
    log: _TaskLog,
    samples: list[Any],
    examples: FewShotExamples,
    backend: Backend,
    asked: Conversation,
    rank: int,
    of: int,
) -> None:
    """Score the missing samples of one run of a task."""
    task = plan.tasks[log.task]
    max_tokens = plan.max_batch_tokens
    if max_tokens is None:
        max_tokens = backend.batch_tokens
        if task_types.of(task).generates(plan.protocol):
            max_tokens *= 8
    batching = Batching(max_tokens, rank=rank, world_size=of)
    permutations = plan.orders[log.task].permutations(log.order) if log.order else []
    samples = _log_samples(plan, log, samples)
    with SampleLog(log.path, rank) as sample_log:
        run_task.score(
            log.task,
            task,
            samples,
            examples,
            plan.protocol,
            log.run,
            backend,
            asked,
            sample_log,
            batching,
            permutations,
        )


def _log_estimate(
    plan: Plan,
    samples: dict[str, list[Any]],
    examples: dict[str, dict[int, FewShotExamples]],
    backend: OpenAIBackend,
    asked: Conversation,
) -> None:
    """Log how much the endpoint will be asked, before it is."""
    requests: list[Any] = []
    for log in _logs(plan):
        done = _samples(log.path)
        task = plan.tasks[log.task]
        missing = [
            sample for sample in _log_samples(plan, log, samples[log.task]) if sample.id not in done
        ]
        if missing:
            few_shot = examples[log.task][log.run]
            job = task_types.of(task).job(
                log.task, task, missing, few_shot, plan.protocol, log.run, backend, asked
            )
            requests += job.requests if job.encode is None else job.encode()
    logger.info(backend.estimate(requests).text(backend.endpoint))


def _backend(plan: Plan) -> Backend:
    return backend_loading.load(
        plan.backend,
        plan.model,
        folder=plan.output,
        endpoint=plan.endpoint,
        adapter=plan.adapter,
        dtype=plan.dtype,
        device=plan.device,
        tensor_parallel=plan.tensor_parallel,
    )


def _wait_for_others(plan: Plan, samples: dict[str, list[Any]], check: Callable[[], None]) -> None:
    """Return when the other processes have written the samples of all runs."""
    logs = _logs(plan)
    expected = sum(len(_log_samples(plan, log, samples[log.task])) for log in logs)
    last = -1
    since = time.monotonic()
    while True:
        written = sum(len(_samples(log.path)) for log in logs)
        if written >= expected:
            return
        check()
        if written > last:
            last = written
            since = time.monotonic()
        if time.monotonic() - since > barrier.TIMEOUT_SECONDS:
            raise DataError(
                f"{expected - written} of {expected} samples are missing: another process has"
                " ended; start the same command again"
            )
        time.sleep(barrier.POLL_SECONDS)


def _logs(plan: Plan) -> list[_TaskLog]:
    """Return the sample logs of all runs of all tasks."""
    logs = []
    for name, task in plan.tasks.items():
        runs = task_types.of(task).runs(task, plan.protocol)
        num_orders = plan.orders[name].count if name in plan.orders else 1
        for run in runs:
            for order in range(num_orders):
                file = file_name(name, run if len(runs) > 1 else "", order)
                logs.append(_TaskLog(name, run, order, plan.output / "samples" / file))
    return logs


def _log_samples(plan: Plan, log: _TaskLog, samples: list[Any]) -> list[Any]:
    """Return the samples of a run of a task in the order of options that it shows."""
    if not log.order:
        return samples
    return [permutation.question for permutation in plan.orders[log.task].permutations(log.order)]


def _samples(path: Path) -> dict[str, Any]:
    if not parts(path):
        return {}
    with SampleLog(path) as log:
        return log.samples


ByRun = dict[str, list[list[dict[str, Any]]]]
"""Scored samples of each run of each task."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """The scored samples."""

    by_run: ByRun
    """In the original order of options, samples in the order of the inputs."""
    by_order: dict[tuple[str, int], list[dict[str, Any]]]
    """By task and run: the samples of each order of options by id."""


def _scored(plan: Plan, samples: dict[str, list[Any]]) -> _Scored:
    """Read the sample logs."""
    by_run: ByRun = {name: [] for name in plan.tasks}
    by_order: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for log in _logs(plan):
        scored = _samples(log.path)
        if not log.order:
            by_run[log.task].append([scored[sample.id] for sample in samples[log.task]])
        by_order.setdefault((log.task, log.run), []).append(scored)
    return _Scored(by_run, by_order)


def _summaries(
    plan: Plan, samples: dict[str, list[Any]], scored: _Scored
) -> dict[str, dict[str, Any]]:
    """Return the entry of each task in the results."""
    summaries = {}
    for name, task in plan.tasks.items():
        task_type = task_types.of(task)
        runs = task_type.runs(task, plan.protocol)
        contaminated = contamination.of_task(plan.contaminated, name)
        summaries[name] = task_type.summarize(
            scored.by_run[name], runs, samples[name], contaminated
        )
        if name in plan.orders:
            summaries[name]["order_bias"] = option_orders.entry(
                plan.orders[name], [scored.by_order[name, run] for run in runs]
            )
        settings = task_type.settings(task, plan.protocol)
        if settings:
            summaries[name]["settings"] = summaries[name].get("settings", {}) | settings
    return summaries


def _write_results(
    plan: Plan, samples: dict[str, list[Any]], record: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Write results, recipe and manifest; return the results.

    `record` has the keys of the results that are known once the model is loaded.
    """
    scored = _scored(plan, samples)
    summaries = _summaries(plan, samples, scored)
    outputs = [plan.output / finished_run.RESULTS]
    if plan.endpoint is not None:
        outputs.append(plan.output / request_log.NAME)
    for log in _logs(plan):
        outputs += parts(log.path)
    outputs += _further_files(plan, samples, scored.by_run, record["device"])
    results = {
        "model": {
            "name": plan.name,
            "path": plan.endpoint.base_url if plan.endpoint else str(plan.model),
            "adapter": str(plan.adapter) if plan.adapter else None,
        },
        "protocol": plan.protocol_name,
        "settings": plan.configuration["settings"],
        "tasks": summaries,
        **record,
        "versions": manifest.versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    write_text(plan.output / finished_run.RECIPE, plan.recipe)
    write_text(plan.output / finished_run.RESULTS, text + "\n")
    manifest.write(
        plan.output / manifest.NAME,
        stage="evaluate",
        inputs=plan.files,
        config={**plan.configuration, **record["device"]},
        outputs=outputs,
        counts={"samples": {name: len(samples[name]) for name in plan.tasks}},
        seconds=round(seconds, 1),
    )
    read_back: dict[str, Any] = json.loads(text)
    return read_back


def _further_files(
    plan: Plan, samples: dict[str, list[Any]], by_run: ByRun, device: dict[str, str]
) -> list[Path]:
    """Write the files that types of tasks have of their own; return them."""
    model = {"pretrained": str(plan.model), "backend": plan.backend, **device}
    if plan.adapter is not None:
        model["adapter"] = str(plan.adapter)
    files: list[Path] = []
    for name, task in plan.tasks.items():
        files += task_types.of(task).write_files(
            name, by_run[name], samples[name], plan.protocol, model, plan.output
        )
    return files
