"""Steps that decide over all documents at once, such as deduplication, and their stages.

Each splits the recipe's steps into two stages. The tasks of the stage before it collect features of
each document (`collect`), `decide` turns the features of all tasks into decisions, and the tasks of
the stage after it apply them (`apply`). A task has the documents of one input file in both stages,
so a decision is found by its position.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.steps.base import DocumentWriter, S, StepSettings
from galen.atomic import atomic_file

KEEP = 0
Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Context:
    """Everything that a global step has access to."""

    folder: Path
    """Its own working folder, for features and decisions."""

    sources: Sequence[str]
    """For each task, the name of its source."""

    run: Callable[[str, list[PipelineStep], int], Any]
    """Runs pipeline steps under a label with a number of tasks; resumes them after a kill."""

    exclusion_writer: DocumentWriter | None = None
    """Writer of the documents that the step drops."""

    report: dict[str, Any] = field(default_factory=dict)
    """Findings of the step, for the corpus's statistics.json."""

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return len(self.sources)


class GlobalStep(ABC, Generic[S]):
    """A step over all documents.

    Args:
        settings: of the recipe; an instance of `Settings`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[StepSettings]]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def collect(self, context: Context) -> list[PipelineStep]:
        """Return the steps that pass documents on and write their features."""

    @abstractmethod
    def decide(self, context: Context) -> None:
        """Turn features into decisions; killed and called again, it gives the same."""

    @abstractmethod
    def apply(self, context: Context) -> PipelineStep:
        """Return the step that applies the decisions of its task to the documents.

        The documents come in the order of the features.
        """


class FeatureWriter(PipelineStep):
    """Passes documents on and writes `<rank>.npy`.

    It has a row of a structured array for each document, made by `row`.
    """

    type = "FEATURES"

    def __init__(
        self,
        name: str,
        folder: Path,
        row_type: np.dtype[Any],
        row: Callable[[Document], tuple[Any, ...]],
    ) -> None:
        self.name = name
        super().__init__()
        self.folder = folder
        self.row_type = row_type
        self.row = row

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        rows = []
        for document in data:
            rows.append(self.row(document))
            yield document
        save_array(self.folder / f"{rank:05d}.npy", np.array(rows, dtype=self.row_type))


def save_array(path: Path, rows: Array) -> None:
    """Write an array as a .npy file, atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows)


def load_features(folder: Path, tasks: int) -> list[Array]:
    """Return the rows of each task."""
    return [np.load(folder / f"{task:05d}.npy") for task in range(tasks)]


def save_decisions(folder: Path, decisions: Array, features: Sequence[Array]) -> None:
    """Write the decisions on all documents as one file per task.

    Args:
        folder: for `<task>.npy`.
        decisions: one for each document, in the order of the tasks.
        features: rows of each task, whose numbers divide the decisions.
    """
    ends = np.cumsum([len(rows) for rows in features])
    for task, rows in enumerate(np.split(decisions, ends[:-1])):
        save_array(folder / f"{task:05d}.npy", rows)


class DecisionFilter(BaseFilter):
    """Drops the documents whose decision is not KEEP.

    Args:
        name: of the step.
        folder: with `<task>.npy`, a decision for each document.
        reasons: for the decisions 1, 2, …
        exclusion_writer: writer of the dropped documents.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        reasons: Sequence[str],
        exclusion_writer: DocumentWriter | None,
    ) -> None:
        self.name = name
        super().__init__(exclusion_writer)
        self.folder = folder
        self.reasons = ("", *reasons)

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task that stay."""
        self._decisions = iter(np.load(self.folder / f"{rank:05d}.npy").tolist())
        yield from super().run(data, rank, world_size)
        unused = next(self._decisions, None)
        assert unused is None, f"task {rank} has fewer documents than decisions"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        decision = next(self._decisions)
        if decision == KEEP:
            return True
        return False, self.reasons[decision]
