"""The stages of a corpus.

A recipe's steps, cut at those that need all documents, and what each stage counted.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.curation.exclusion_writer import ExclusionWriter
from data_prep.curation.source_filter import SomeSources
from data_prep.curation.stage_reader import PartReader
from data_prep.curation.writers import RecordWriter
from data_prep.executors.local import TaskExecutor
from data_prep.steps.global_step import Context, CorpusStep, PreparedFilter
from galen import json_file
from galen.atomic import write_text
from galen.progress import Progress

Executors = Callable[[list[PipelineStep], int, Path], TaskExecutor]
"""Makes an executor from steps, number of tasks and log folder."""


@dataclass(slots=True)
class Plan:
    """Steps between two that need all documents."""

    steps: list[PipelineStep] = field(default_factory=list)
    """Per-document steps, in order."""

    barrier: CorpusStep | None = None
    """The step over all documents after them."""


def cut(steps: Sequence[PipelineStep | CorpusStep]) -> list[Plan]:
    """Return the stages of a list of steps; the last has no barrier."""
    plans = [Plan()]
    for step in steps:
        if isinstance(step, CorpusStep):
            plans[-1].barrier = step
            plans.append(Plan())
        else:
            plans[-1].steps.append(step)
    return plans


class Stages:
    """Runs the stages of a corpus in a folder, each restartable, and keeps the counts.

    Args:
        sources: for each task, its source's name.
        folder: working folder.
        executors: makes executors.
        keep_dropped: write all dropped documents to `folder/corpus/excluded`.
        size: bytes of input, for the progress of the first stage.
    """

    def __init__(
        self,
        sources: Sequence[str],
        folder: Path,
        executors: Executors,
        keep_dropped: bool,
        size: int,
    ) -> None:
        self.sources, self.folder, self.executors, self.size = sources, folder, executors, size
        self.everything = folder / "corpus/excluded" if keep_dropped else None
        self.dropped: list[Counter[str]] = [Counter() for _ in sources]
        """For each task, how many documents were dropped for each reason."""
        self.changed: Counter[str] = Counter()
        """How many documents each step changed."""
        self.reports: dict[str, Any] = {}
        """What steps found, by their names."""
        self.read: TaskExecutor
        """That of the first stage, once it has run."""

    def run(
        self,
        reader: PipelineStep,
        plans: Sequence[Plan],
        last: list[PipelineStep],
        check: Callable[[TaskExecutor], None],
    ) -> TaskExecutor:
        """Run all stages from `reader` on; the documents of the last go into the steps `last`.

        `check` is called with the executor of the first stage when that is done. Returns the
        executor of the last.
        """
        start: list[PipelineStep] = [reader]
        for number, plan in enumerate(plans):
            steps = [*start, *plan.steps]
            self._watch(steps, number)
            prepared = [
                (step, self.folder / f"{number}-{step.name}-{place}")
                for place, step in enumerate(steps)
                if isinstance(step, PreparedFilter)
            ]
            for step, place in prepared:
                step.prepare(place)
            label, tail = "read" if number == 0 else "write", last
            if plan.barrier is not None:
                context = self._context(number, plan.barrier)
                label = "read" if number == 0 else f"step-{number}"
                tail = [
                    RecordWriter(str(self._kept(number)), level=1),
                    *plan.barrier.notes(context),
                ]
            executor = self.run_tasks(label, [*steps, *tail], len(self.sources))
            if number == 0:
                self.read = executor
                check(executor)
            self._count(executor, steps, number)
            for step, place in prepared:
                self._report(str(step.name), step.finish(place, len(self.sources)))
            if number > 1:
                shutil.rmtree(self._kept(number - 2), ignore_errors=True)
            if plan.barrier is not None:
                self._decide(plan.barrier, context)
                start = [PartReader(str(self._kept(number))), plan.barrier.apply(context)]
        return executor

    def _report(self, name: str, report: dict[str, Any]) -> None:
        """Keep what a step found; the second of a name is `name 2`."""
        before = sum(known.partition(" ")[0] == name for known in self.reports)
        self.reports[f"{name} {before + 1}" if before else name] = report

    def _kept(self, number: int) -> Path:
        return self.folder / ("kept" if number == 0 else f"kept-{number}")

    def _context(self, number: int, step: CorpusStep) -> Context:
        def run(label: str, steps: list[PipelineStep], tasks: int) -> TaskExecutor:
            return self.run_tasks(f"{number}-{step.name}-{label}", steps, tasks)

        return Context(self.folder / f"{number}-{step.name}", self.sources, run)

    def _watch(self, steps: Sequence[PipelineStep], number: int) -> None:
        """Give filters writers for dropped documents, and per-source steps the tasks' sources."""
        for place, step in enumerate(steps):
            if isinstance(step, SomeSources):
                step.of_task = self.sources
                step = step.step
            if isinstance(step, BaseFilter):
                step.exclusion_writer = ExclusionWriter(
                    str(step.name), self.folder / "samples", f"{number}-{place}", self.everything
                )

    def run_tasks(self, label: str, steps: list[PipelineStep], tasks: int) -> TaskExecutor:
        """Run the rest of one set of tasks to its end and show its progress."""
        executor = self.executors(steps, tasks, self.folder / "log" / label)
        total, unit = (self.size, "B") if label == "read" else (tasks, "tasks")
        with Progress(label, total=total, unit=unit, scale=unit == "B") as progress:

            def poll() -> None:
                done = (
                    executor.position()
                    if unit == "B"
                    else tasks - len(executor.get_incomplete_ranks())
                )
                progress.update(max(0, done - progress.done))

            executor.run(poll)
            poll()
        return executor

    def _decide(self, step: CorpusStep, context: Context) -> None:
        """Decide once: a mark says that the verdicts are whole."""
        note = context.folder / "report.json"
        if not note.exists():
            step.decide(context)
            write_text(note, json.dumps(context.report, ensure_ascii=False))
        if report := json_file.read_object(note):
            self._report(step.name, report)

    def _count(self, executor: TaskExecutor, steps: Sequence[PipelineStep], number: int) -> None:
        """Take over the counts of a stage, by task and in the order of the steps."""
        for task in range(len(self.sources)):
            counted = executor.task_counts(task)
            for place, step in enumerate(steps):
                name = "reader" if number == 0 and place == 0 else str(step.name)
                for key, value in counted[place].items():
                    if key.startswith("dropped_"):
                        self.dropped[task][f"{name}: {key.removeprefix('dropped_')}"] += value
                    elif key.startswith("changed_"):
                        self.changed[f"{name}: {key.removeprefix('changed_')}"] += value
