"""From a task and its items to scored items and metrics. Knows no model: a backend gives log-likelihoods."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from evaluation import document, encoding, metrics, prompts, question
from evaluation.item_log import ItemLog
from evaluation.task import MultipleChoiceTask, PerplexityTask, Task
from galen.errors import DataError
from galen.progress import Progress

Item = dict[str, Any]


class Backend(Protocol):
    """What scores: a tokenizer, and log-likelihoods of continuations batch by batch (see `TransformersBackend`)."""

    tokenizer: Any
    context_length: int | None

    def log_likelihoods(
        self, requests: Sequence[encoding.Request], max_batch_tokens: int, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's place and its continuations' log-likelihoods."""
        ...


def input_files(task: Task, data: Path) -> list[Path]:
    """Return the files below `data` that a task reads.

    Raises:
        DataError: they are not there.
    """
    if isinstance(task, PerplexityTask):
        return document.files(data / task.documents)
    path = data / task.file
    if not path.is_file():
        raise DataError(f"there is no file {path}; the task reads its questions from there (a path below --data)")
    return [path]


def read_items(task: Task, data: Path, limit: int | None) -> list[question.Question] | list[document.Document]:
    """Read a task's questions or documents, at most `limit`."""
    if isinstance(task, MultipleChoiceTask):
        return question.read(data / task.file)[:limit]
    limits = [number for number in (task.max_documents, limit) if number is not None]
    return document.read(data / task.documents, min(limits, default=None))


def score(name: str, task: Task, items: Sequence[Any], protocol: str, backend: Backend, log: ItemLog, max_batch_tokens: int) -> None:
    """Score all items that `log` lacks, appending each batch as it comes."""
    wanted = {item.id for item in items}
    strangers = [id_ for id_ in log.items if id_ not in wanted]
    if strangers:
        raise DataError(f"{log.path} holds items that the task has not, for example {strangers[0]!r}; choose another --output")
    done = {place for place, item in enumerate(items) if item.id in log.items}
    requests, build = _prepare(name, task, items, protocol, backend)
    with Progress(name, total=len(items) - len(done), unit="items") as progress:
        for batch in backend.log_likelihoods(requests, max_batch_tokens, done):
            scored = [build(place, likelihoods) for place, likelihoods in batch]
            progress.update(log.append(scored))


def _prepare(
    name: str, task: Task, items: Sequence[Any], protocol: str, backend: Backend
) -> tuple[list[encoding.Request], Callable[[int, list[float]], Item]]:
    """Return the requests of all items, and the function that makes a scored item from a place and its log-likelihoods."""
    length = backend.context_length
    if isinstance(task, PerplexityTask):
        if length is not None and task.max_tokens > length:
            raise DataError(f"task {name}: max_tokens is {task.max_tokens}, but the model reads at most {length} tokens")
        encoded = [encoding.encode_document(backend.tokenizer, item.text, task.max_tokens) for item in items]
        requests = [request for request, _ in encoded]
        sizes = [size for _, size in encoded]
        return requests, lambda place, values: perplexity_item(items[place], requests[place], sizes[place], _finite(values, name))
    form = prompts.form(protocol)
    requests = [encoding.encode_prompt(backend.tokenizer, form(item)) for item in items]
    if length is not None:
        too_long = sum(request.input_length > length for request in requests)
        if too_long:
            print(f"{name}: {too_long} of {len(requests)} prompts are longer than the model's {length} tokens; their beginning is cut")
        requests = [encoding.cut(request, length) for request in requests]
    return requests, lambda place, values: choice_item(items[place], _finite(values, name))


def perplexity_item(item: document.Document, request: encoding.Request, size: int, values: list[float]) -> Item:
    """Return `{"id", "nll" (nats), "tokens", "bytes"}`."""
    return {"id": item.id, "nll": -values[0], "tokens": len(request.continuations[0]), "bytes": size}


def choice_item(item: question.Question, values: list[float]) -> Item:
    """Return `{"id", "answer", "prediction", "correct", "logprobs"}`; of options with the same likelihood the first is predicted."""
    logprobs = dict(zip(item.options, values, strict=True))
    prediction = max(logprobs, key=lambda letter: logprobs[letter])
    return {
        "id": item.id,
        "answer": item.answer,
        "prediction": prediction,
        "correct": prediction == item.answer,
        "logprobs": logprobs,
    }


def summarise(task: Task, items: Sequence[Item]) -> dict[str, Any]:
    """Return a task's entry of `results.json`: kind, number of items, metrics with 95 % intervals, totals."""
    if isinstance(task, PerplexityTask):
        nll, tokens, size = ([item[key] for item in items] for key in ("nll", "tokens", "bytes"))
        estimates = {"perplexity": metrics.perplexity(nll, tokens), "bits_per_byte": metrics.bits_per_byte(nll, size)}
        extra = {"tokens": sum(tokens), "bytes": sum(size), "interval": "95 %, bootstrap over documents"}
    else:
        estimates = {"accuracy": metrics.accuracy([item["correct"] for item in items])}
        chance = sum(1 / len(item["logprobs"]) for item in items) / len(items)
        extra = {"chance": chance, "interval": "95 %, Wilson"}
    return {
        "kind": task.kind,
        "items": len(items),
        "metrics": {name: estimate.as_dict() for name, estimate in estimates.items()},
        **extra,
    }


def _finite(values: list[float], name: str) -> list[float]:
    if not all(abs(value) < float("inf") for value in values):  # also false for NaN
        raise DataError(
            f"task {name}: the model gives a log-likelihood that is not a number; its weights are damaged, or try --dtype float32"
        )
    return values
