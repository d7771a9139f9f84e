"""Tasks and groups of the installed lm-evaluation-harness: names, documents, requests, scores.

`lm_eval` is imported where it is used: it is optional, and takes seconds to import.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.chat_models.conversation import Conversation
from evaluation.harness import metrics, task_index
from evaluation.harness.metrics import Primary
from evaluation.tasks.task import LmEvalTask
from galen import recipe
from galen.errors import DataError, GalenError, UsageError, one_line

RANDOM_SEED = 0
FEWSHOT_SEED = 1234
"""The harness' own default seeds."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a benchmark, one sample."""

    id: str
    """Its number in the task's split; in a group `TASK:NUMBER`."""
    task: str
    """The harness' task."""
    number: int
    benchmark: "Benchmark" = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How prompts become conversations."""

    template: bool = False
    """Whether the model's chat template is applied."""
    system: str | None = None
    """System instruction."""
    multiturn: bool = False
    """Whether few-shot examples are turns of their own."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The harness' results of some samples."""

    samples: Sequence[Mapping[str, Any]]
    chat: ChatFormat
    results: dict[str, Any]


class Benchmark:
    """A task or a group of the harness with its data.

    Args:
        task: the specification.
        data: folder of the data sets.

    Raises:
        UsageError: the harness is not installed, has no such task, or the task is unsupported.
        DataError: a data set is missing or damaged.
    """

    def __init__(self, task: LmEvalTask, data: Path) -> None:
        manager = task_index.manager(task.include_path)
        task_index.check_name(task.task, manager)
        entry = manager.task_index[task.task]
        if entry.kind.name == "TAG":
            raise UsageError(
                f"{task.task!r} is a list of tasks of lm-evaluation-harness"
                f" ({', '.join(sorted(entry.tags)[:4])} …); name lm_eval:{task.task} in --tasks"
            )
        for leaf in task_index.leaves(manager.task_index, task.task):
            if manager.task_index[leaf].cfg.get("unsafe_code"):
                raise _unsafe(leaf)
        from evaluation.harness.local_datasets import LocalDatasets

        self.name = task.task
        local = LocalDatasets(data, task.task)
        _seed()
        with local.redirect(), messages(task.task), quiet(logging.ERROR):
            loaded = manager.load([task.task])
        self.tasks: dict[str, Any] = loaded["tasks"]
        self.groups: dict[str, Any] = loaded.get("groups", {})
        self.files = [*dict.fromkeys(local.files), *task_index.own_code(manager.task_index, task)]
        self.fewshot_seed = task.fewshot_seed
        self.conversation: Conversation | None = None
        """How the latest model is asked; None before `requests`."""
        self.evaluated: Evaluated | None = None
        for name, harness_task in self.tasks.items():
            _check_supported(name, harness_task)
            _configure(harness_task, task)

    @property
    def group(self) -> Any:
        """Return the group, or None for a single task."""
        return self.groups.get(self.name)

    @functools.cached_property
    def primary(self) -> Primary:
        """The metric that models are compared by."""
        if self.group is not None:
            return metrics.group_primary(self.group, self.tasks)
        return metrics.primary(self.tasks[self.name])

    def sample(
        self, document: Document, instances: Sequence[Any], responses: Sequence[Sequence[Any]]
    ) -> dict[str, Any]:
        """Return the scored sample of a document: its responses, metrics that are numbers, score.

        Args:
            document: the document.
            instances: its requests.
            responses: of each request, one per repetition.

        Raises:
            DataError: the task's functions fail.
        """
        values = self._values(document, instances, responses)
        aggregation = self.tasks[document.task].aggregation()
        sample: dict[str, Any] = {"id": document.id, "responses": responses}
        if self.group is not None:
            sample["subject"] = document.task
        sample["metrics"] = metrics.shown(values)
        return sample | metrics.score(values, self.primary, aggregation)

    def definition(self) -> dict[str, Any]:
        """Return what identifies the definition: the library's version, and a hash by task."""
        hashes = {}
        for name, task in self.tasks.items():
            config = dict(task.dump_config())
            # the path of the file, which differs between machines
            config["metadata"] = {
                key: value
                for key, value in (config.get("metadata") or {}).items()
                if key != "config_source"
            }
            text = json.dumps(config, sort_keys=True, default=_stable)
            hashes[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {"lm_eval": task_index.version(), "definitions": hashes}

    def documents(self, limit: int | None) -> list[Document]:
        """Return the documents: of each task all, or the first `limit`, as in the harness."""
        documents = []
        for name, task in self.tasks.items():
            count = len(task.eval_docs)
            if limit is not None:
                count = min(count, limit)
            for number in range(count):
                id_ = str(number) if self.group is None else f"{name}:{number}"
                documents.append(Document(id_, name, number, self))
        return documents

    def requests(self, lm: Any, documents: Sequence[Document], chat: ChatFormat) -> list[list[Any]]:
        """Return the instances (prompts) of each document.

        Args:
            lm: the model, for its chat template.
            documents: of this benchmark, from `documents`.
            chat: how prompts become conversations.

        Raises:
            DataError: a prompt cannot be rendered.
        """
        by_document: dict[tuple[str, int], list[Any]] = {}
        self.conversation = lm.conversation
        self.seed()
        for name, task in self.tasks.items():
            numbers = [document.number for document in documents if document.task == name]
            if not numbers:
                continue
            with messages(name), quiet():
                # also those before: random few-shot examples are drawn one document after another
                task.build_all_requests(
                    limit=max(numbers) + 1,
                    rank=0,
                    world_size=1,
                    system_instruction=chat.system,
                    apply_chat_template=chat.template,
                    fewshot_as_multiturn=chat.multiturn,
                    chat_template=lm.apply_chat_template if chat.template else None,
                    tokenizer_name=lm.tokenizer_name if chat.template else "",
                )
            for instance in task.instances:
                by_document.setdefault((name, instance.doc_id), []).append(instance)
        instances = [by_document[document.task, document.number] for document in documents]
        for of_document in instances:
            of_document.sort(key=lambda instance: instance.idx)
        return instances

    def seed(self) -> None:
        """Seed random numbers and few-shot examples as the harness does before a run."""
        _seed()
        for task in self.tasks.values():
            task.set_fewshot_seed(seed=self.fewshot_seed)

    def _values(
        self, document: Document, instances: Sequence[Any], responses: Sequence[Sequence[Any]]
    ) -> dict[tuple[str, str], Any]:
        """Return a document's value of each metric and filter, by the task's own functions."""
        task = self.tasks[document.task]
        values: dict[tuple[str, str], Any] = {}
        with messages(document.task, f", document {document.number}"):
            for instance, of_instance in zip(instances, responses, strict=True):
                instance.resps = list(of_instance)
            for ensemble in task._filters:
                ensemble.apply(list(instances))
                filtered = [instance.filtered_resps[ensemble.name] for instance in instances]
                for metric, value in task.process_results(instances[0].doc, filtered).items():
                    values[metric, ensemble.name] = value
        return values


@functools.lru_cache(maxsize=64)
def _loaded(task: str, data: Path) -> Benchmark:
    return Benchmark(LmEvalTask(**json.loads(task)), data)


def load(task: LmEvalTask, data: Path) -> Benchmark:
    """Return a benchmark; read once in a process."""
    return _loaded(json.dumps(recipe.to_dict(task), sort_keys=True), data)


def _check_supported(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise _unsafe(name)
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(
            f"lm_eval:{name} needs images or audio, which Galen's backends do not read"
        )


def _unsafe(name: str) -> UsageError:
    return UsageError(
        f"lm_eval:{name} runs code that the model writes, which Galen does not; use the harness in"
        " a sandbox"
    )


def _configure(harness_task: Any, task: LmEvalTask) -> None:
    """Apply the overrides of the specification, by the harness' rules."""
    default = harness_task.get_config("num_fewshot")
    if default is None or (task.num_fewshot is not None and default != 0):
        harness_task.set_config(key="num_fewshot", value=task.num_fewshot or 0)
    kwargs = task.generation_kwargs
    if kwargs and harness_task.get_config("output_type") == "generate_until":
        harness_task.set_config(key="generation_kwargs", value=dict(kwargs), update=True)


def _seed() -> None:
    random.seed(RANDOM_SEED)
    np.random.seed(FEWSHOT_SEED)


@contextlib.contextmanager
def quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Suppress what the harness prints, and its progress bars; log lines below `level`, too."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(level)
    discarded = io.StringIO()
    try:
        with contextlib.redirect_stdout(discarded), contextlib.redirect_stderr(discarded):
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def messages(task: str, of: str = "") -> Iterator[None]:
    """Turn what a task's own code raises into one message.

    Raises:
        UsageError: a package that the task needs is not installed.
        DataError: anything else fails.
    """
    try:
        yield
    except GalenError:
        raise
    except ImportError as error:
        raise UsageError(
            f"lm_eval:{task} needs a package that is not installed: {one_line(error)}"
        ) from None
    # tasks are code of many authors
    except Exception as error:
        hint = "do its rows have the columns of the published data set?"
        if isinstance(error, OSError):
            hint = "nothing is downloaded while a task is loaded"
        raise DataError(
            f"lm_eval:{task}{of}: the task's own code fails with"
            f" {type(error).__name__}: {one_line(error)}; {hint}"
        ) from error


def _stable(value: Any) -> str:
    """Return an object of a task's configuration as a text without addresses."""
    return getattr(value, "__qualname__", type(value).__qualname__)
