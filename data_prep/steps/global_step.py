"""Steps that decide over all documents at once, such as deduplication, and their stages.

Each cuts the recipe's steps into two stages. The tasks of the stage before it write notes on each
document (`notes`), `decide` turns the notes of all tasks into verdicts, and the tasks of the stage
after it apply them (`apply`). A task has the documents of one input file in both stages, so a
verdict is found by its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from galen.atomic import atomic_file

KEEP = 0
Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Context:
    """What a step over all documents may know."""

    folder: Path
    """Its own working folder, for notes and verdicts."""

    sources: Sequence[str]
    """For each task, the name of its source."""

    run: Callable[[str, list[PipelineStep], int], Any]
    """Runs steps with a label and a number of tasks, restartably."""

    report: dict[str, Any] = field(default_factory=dict)
    """What the step found, for the corpus's statistics.json."""

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return len(self.sources)


class CorpusStep(ABC):
    """A step over all documents."""

    name: str

    @abstractmethod
    def notes(self, context: Context) -> list[PipelineStep]:
        """Return the steps that pass documents on and write notes."""

    @abstractmethod
    def decide(self, context: Context) -> None:
        """Turn notes into verdicts; killed and called again, it gives the same."""

    @abstractmethod
    def apply(self, context: Context) -> PipelineStep:
        """Return the step that applies the verdicts of its task to the documents.

        The documents come in the order of the notes.
        """


class PreparedFilter(BaseFilter):
    """A filter that is prepared once before its tasks and publishes files after them."""

    def check(self) -> None:
        """Check what it is made of, before any work.

        Raises:
            DataError: a file is missing or damaged.
        """

    def prepare(self, folder: Path) -> None:
        """Make it in the step's folder; called again after a kill, it does what is left."""

    def finish(self, folder: Path, tasks: int) -> dict[str, Any]:
        """Put files for the corpus into `folder/publish` and return what was found."""
        return {}


class NoteWriter(PipelineStep):
    """Passes documents on and writes `<rank>.npy`.

    A row of a structured array for each, made by `row`.
    """

    type = "NOTES"

    def __init__(
        self,
        name: str,
        folder: Path,
        row_type: np.dtype[Any],
        row: Callable[[Document], tuple[Any, ...]],
    ) -> None:
        self.name = name
        super().__init__()
        self.folder, self.row_type, self.row = folder, row_type, row

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
    """Write an array as a .npy file, whole or not at all."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows)


def load_notes(folder: Path, tasks: int) -> list[Array]:
    """Return the rows of each task."""
    return [np.load(folder / f"{task:05d}.npy") for task in range(tasks)]


def save_verdicts(folder: Path, verdicts: Array, notes: Sequence[Array]) -> None:
    """Write the verdicts on all documents, given in the order of the tasks, as one file a task."""
    ends = np.cumsum([len(rows) for rows in notes])
    for task, part in enumerate(np.split(verdicts, ends[:-1])):
        save_array(folder / f"{task:05d}.npy", part)


class VerdictFilter(BaseFilter):
    """Drops the documents whose verdict is not KEEP, for the reason that the verdict stands for."""

    def __init__(self, name: str, folder: Path, reasons: Sequence[str]) -> None:
        self.name = name
        super().__init__()
        self.folder, self.reasons = folder, ("", *reasons)

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task that stay."""
        self._next = iter(np.load(self.folder / f"{rank:05d}.npy").tolist())
        yield from super().run(data, rank, world_size)
        assert next(self._next, None) is None, f"task {rank} has fewer documents than verdicts"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        verdict = next(self._next)
        return verdict == KEEP or (False, self.reasons[verdict])
