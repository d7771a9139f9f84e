"""The stages of a corpus: runs of steps from one that needs all documents to the next."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from data_prep.curation.exclusion_writer import ExclusionWriter
from data_prep.curation.registry import build_step, is_global
from data_prep.curation.source_filter import PerSourceStep
from data_prep.curation.stage_reader import StageReader
from data_prep.curation.writers import RecordWriter
from data_prep.executors.local import TaskExecutor
from data_prep.steps.base import PerSourceSettings, PreparedFilter, StepSettings
from data_prep.steps.global_step import Context, GlobalStep
from galen import json_file
from galen.atomic import write_text
from galen.progress import Progress

Executors = Callable[[list[PipelineStep], int, Path], TaskExecutor]
"""Makes an executor from steps, number of tasks and log folder."""

READER = "reader"
"""Name of the reader among the steps that drop documents."""


@dataclass(slots=True)
class StagePlan:
    """Steps between two that need all documents."""

    steps: list[StepSettings] = field(default_factory=list)
    """Per-document steps, in order."""

    barrier: StepSettings | None = None
    """The step over all documents after them; None in the last stage."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A filter with files of its own."""

    step: PreparedFilter[Any]
    folder: Path


def split_at_barriers(steps: Sequence[StepSettings]) -> list[StagePlan]:
    """Return the stages of a list of steps; the last has no barrier."""
    plans = [StagePlan()]
    for settings in steps:
        if is_global(settings):
            plans[-1].barrier = settings
            plans.append(StagePlan())
        else:
            plans[-1].steps.append(settings)
    return plans


class Stages:
    """Runs the stages of a corpus in a folder, each resumable, and keeps the counts.

    Args:
        sources: for each task, its source's name.
        folder: working folder.
        executors: makes executors.
        save_excluded: write all dropped documents to `folder/corpus/excluded`.
        input_bytes: size of the input, for the progress of the first stage.
    """

    def __init__(
        self,
        sources: Sequence[str],
        folder: Path,
        executors: Executors,
        save_excluded: bool,
        input_bytes: int,
    ) -> None:
        self.sources = sources
        self.folder = folder
        self.executors = executors
        self.input_bytes = input_bytes
        self.excluded_folder = folder / "corpus/excluded" if save_excluded else None
        self.dropped: list[Counter[tuple[str, str]]] = [Counter() for _ in sources]
        """For each task, how many documents were dropped, by step and reason."""
        self.changed: Counter[str] = Counter()
        """Number of documents that each step changed."""
        self.reports: dict[str, Any] = {}
        """Findings of the steps, by their names."""
        self.published: list[Path] = []
        """Folders with files of the steps for the corpus, in the order of the steps."""
        self.read: TaskExecutor
        """That of the first stage, once it has run."""

    def run(
        self,
        reader: PipelineStep,
        plans: Sequence[StagePlan],
        last: list[PipelineStep],
        check_reading: Callable[[TaskExecutor], None],
    ) -> TaskExecutor:
        """Run all stages from `reader` on; the documents of the last go into the steps `last`.

        `check_reading` is called with the executor of the first stage when that is done. Returns
        the executor of the last.
        """
        first: list[PipelineStep] = [reader]
        for number, plan in enumerate(plans):
            steps = self._build(plan.steps, number, first)
            prepared = self._prepare(steps, number)
            if plan.barrier is None:
                executor = self._run_stage(number, "write", [*steps, *last])
            else:
                barrier = build_step(plan.barrier)
                context = self._context(number, barrier.name)
                writer = RecordWriter(str(self._documents(number)), level=1)
                tail = [writer, *barrier.collect(context)]
                executor = self._run_stage(number, f"step-{number}", [*steps, *tail])
            if number == 0:
                self.read = executor
                check_reading(executor)
            self._count(executor, steps, number)
            for entry in prepared:
                report = entry.step.finish(entry.folder, len(self.sources))
                self._add_report(str(entry.step.name), report)
                self.published.append(entry.folder / "publish")
            if number > 1:
                shutil.rmtree(self._documents(number - 2), ignore_errors=True)
            if plan.barrier is not None:
                self._decide(barrier, context)
                self.published.append(context.folder / "publish")
                first = [StageReader(str(self._documents(number))), barrier.apply(context)]
        return executor

    def _build(
        self, settings_of_steps: Sequence[StepSettings], number: int, first: Sequence[PipelineStep]
    ) -> list[PipelineStep]:
        """Return the steps of a stage: `first`, then those with the given settings."""
        steps = list(first)
        for settings in settings_of_steps:
            step = build_step(settings, self._exclusion_writer(settings.step, number, len(steps)))
            if isinstance(settings, PerSourceSettings) and settings.sources is not None:
                step = PerSourceStep(step, settings.sources, self.sources)
            steps.append(step)
        return steps

    def _prepare(self, steps: Sequence[PipelineStep], number: int) -> list[_Prepared]:
        """Prepare the filters that need it."""
        prepared = []
        for position, step in enumerate(steps):
            if isinstance(step, PreparedFilter):
                folder = self.folder / f"{number}-{step.name}-{position}"
                step.prepare(folder)
                prepared.append(_Prepared(step, folder))
        return prepared

    def _run_stage(self, number: int, label: str, steps: list[PipelineStep]) -> TaskExecutor:
        if number == 0:
            return self.run_tasks("read", steps, len(self.sources), self.input_bytes)
        return self.run_tasks(label, steps, len(self.sources))

    def _add_report(self, name: str, report: dict[str, Any]) -> None:
        """Keep the findings of a step; the second of a name is `name 2`."""
        key = name
        count = 1
        while key in self.reports:
            count += 1
            key = f"{name} {count}"
        self.reports[key] = report

    def _documents(self, number: int) -> Path:
        """Return the folder with the documents that a stage leaves to the next."""
        return self.folder / f"documents-{number}"

    def _context(self, number: int, name: str) -> Context:
        """Return the context of the step that ends a stage."""
        folder = self.folder / f"{number}-{name}"

        def run(label: str, steps: list[PipelineStep], tasks: int) -> TaskExecutor:
            return self.run_tasks(f"{folder.name}-{label}", steps, tasks)

        # it is applied in the next stage, after the reader
        return Context(folder, self.sources, run, self._exclusion_writer(name, number + 1, 1))

    def _exclusion_writer(self, name: str, number: int, position: int) -> ExclusionWriter:
        """Return the writer of the documents that a step drops, by its position in a stage."""
        prefix = f"{number}-{position}"
        return ExclusionWriter(name, prefix, self.folder / "samples", self.excluded_folder)

    def run_tasks(
        self, label: str, steps: list[PipelineStep], tasks: int, input_bytes: int | None = None
    ) -> TaskExecutor:
        """Run the remaining tasks of a set and show their progress.

        Args:
            label: name of the log folder and of the progress.
            steps: of each task.
            tasks: number of tasks.
            input_bytes: show the bytes read, out of so many; None shows the tasks done.
        """
        executor = self.executors(steps, tasks, self.folder / "log" / label)
        if input_bytes is None:
            progress = Progress(label.replace("_", " "), total=tasks, unit="tasks")
        else:
            progress = Progress(label, total=input_bytes, unit="B", scale=True)
        with progress:

            def poll() -> None:
                if input_bytes is None:
                    done = tasks - len(executor.get_incomplete_ranks())
                else:
                    done = executor.bytes_read()
                progress.update(max(0, done - progress.done))

            executor.run(poll)
            poll()
        return executor

    def _decide(self, step: GlobalStep[Any], context: Context) -> None:
        """Decide once: the report is written when the decisions are complete."""
        path = context.folder / "report.json"
        if not path.exists():
            step.decide(context)
            write_text(path, json.dumps(context.report, ensure_ascii=False))
        if report := json_file.read_object(path):
            self._add_report(step.name, report)

    def _count(self, executor: TaskExecutor, steps: Sequence[PipelineStep], number: int) -> None:
        """Add the counts of a stage, by task and in the order of the steps."""
        for task in range(len(self.sources)):
            for position, counts in enumerate(executor.task_counts(task)[: len(steps)]):
                is_reader = number == 0 and position == 0
                name = READER if is_reader else str(steps[position].name)
                for key, value in counts.items():
                    if key.startswith("dropped_"):
                        self.dropped[task][name, key.removeprefix("dropped_")] += value
                    elif key.startswith("changed_"):
                        self.changed[f"{name}: {key.removeprefix('changed_')}"] += value
