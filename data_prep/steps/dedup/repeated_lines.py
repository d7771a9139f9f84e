"""Boilerplate: lines, or sentences, of many documents are removed from all but the first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentWriter, StepSettings
from data_prep.steps.global_step import Array, Context, GlobalStep, load_features, save_array
from data_prep.text.hashing import stable_hash
from data_prep.text.sentences import SentenceSplitter
from data_prep.text.words import count_words, plain_words
from galen.recipe import STRICT

Unit = Literal["line", "sentence"]
_FILE = "lines.npy"
_LINE = np.dtype([("line", "<u8"), ("documents", "<u4"), ("task", "<u4")])
_RANGES = 64


@dataclass(kw_only=True, config=STRICT)
class LineDedupSettings(StepSettings):
    """Remove lines, or sentences, that occur in many documents.

    Boilerplate such as "All rights reserved" or "Read more".
    """

    step: Literal["line_dedup"] = "line_dedup"
    max_documents: int = Field(default=10, ge=1)
    """A line in more documents than this is removed from all but the first."""

    min_words: int = Field(default=4, ge=1)
    """Shorter lines, such as headings, stay."""

    unit: Unit = "line"
    """Unit of comparison.

    Lines, or the sentences in them (by sentencex, in the language that language_id noted, else
    English).
    """


def split_units(document: Document, unit: Unit) -> list[list[str]]:
    """Return the units of each line of a document, which joined are the line.

    A unit is the line itself, or a sentence of it.
    """
    lines = document.text.split("\n")
    if unit == "line":
        return [[line] for line in lines]
    splitter = SentenceSplitter(document.metadata.get("text_language", "en"), keep_newlines=True)
    return [splitter.split(line) for line in lines]


def line_hash(line: str) -> int:
    """Return the hash by which lines are compared: without case, accents and punctuation."""
    return stable_hash(" ".join(plain_words(line)))


class _LineFeatures(PipelineStep):
    """Passes documents on and writes the sorted hashes of their long lines, with counts.

    The hashes go to `lines/`, the number of documents of each to `documents/`.
    """

    type = "FEATURES"
    name = "lines"

    def __init__(self, folder: Path, settings: LineDedupSettings) -> None:
        super().__init__()
        self.folder = folder
        self.settings = settings

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        hashes: list[int] = []
        for document in data:
            own: set[int] = set()
            for line in split_units(document, self.settings.unit):
                own |= {
                    line_hash(unit) for unit in line if count_words(unit) >= self.settings.min_words
                }
            hashes += own
            yield document
        values, counts = np.unique(np.array(hashes, dtype=np.uint64), return_counts=True)
        save_array(self.folder / f"lines/{rank:05d}.npy", values)
        save_array(self.folder / f"documents/{rank:05d}.npy", counts.astype(np.uint32))


class _LineCounts(PipelineStep):
    """Task `rank` counts the lines of one range of the hashes.

    Those of more than `max_documents` documents are written to `counts/<rank>.npy`.
    """

    type = "DEDUP"
    name = "count"

    def __init__(self, folder: Path, tasks: int, max_documents: int) -> None:
        super().__init__()
        self.folder = folder
        self.tasks = tasks
        self.max_documents = max_documents

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the lines of this range."""
        rows = np.concatenate([self._rows(task, rank) for task in range(self.tasks)])
        # of one line the tasks stay in order
        rows = rows[np.argsort(rows["line"], kind="stable")]
        starts = np.flatnonzero(np.diff(rows["line"], prepend=~rows["line"][:1]))
        totals = np.add.reduceat(rows["documents"], starts) if len(starts) else rows["documents"]
        lines = rows[starts]
        lines["documents"] = totals
        frequent = lines[totals > self.max_documents]
        save_array(self.folder / f"counts/{rank:05d}.npy", frequent)
        yield from ()

    def _rows(self, task: int, rank: int) -> Array:
        """Return the lines of one task in one range of the hashes."""
        features = self.folder / "features"
        lines = np.load(features / f"lines/{task:05d}.npy", mmap_mode="r")
        documents = np.load(features / f"documents/{task:05d}.npy", mmap_mode="r")
        size = 2**64 // _RANGES
        first = int(np.searchsorted(lines, np.uint64(rank * size)))
        last = int(np.searchsorted(lines, np.uint64((rank + 1) * size - 1), side="right"))
        rows = np.empty(last - first, dtype=_LINE)
        rows["line"] = lines[first:last]
        rows["documents"] = documents[first:last]
        rows["task"] = task
        return rows


class LineDedup(GlobalStep[LineDedupSettings]):
    """Removes lines, or sentences, that occur in more than `max_documents` documents.

    Only those of at least `min_words` words count; the first document keeps them.

    Lines are counted in 64 tasks, each for a range of the hashes. Memory: 22 bytes a document of 16
    such lines (benchmarks/curate_memory.py). Documents left empty are dropped.
    """

    name = "line_dedup"
    Settings = LineDedupSettings

    def collect(self, context: Context) -> list[PipelineStep]:
        """Collect hashes of lines."""
        return [_LineFeatures(context.folder / "features", self.settings)]

    def decide(self, context: Context) -> None:
        """Find the lines, and the first task that has each."""
        counts = _LineCounts(context.folder, context.tasks, self.settings.max_documents)
        context.run("count", [counts], _RANGES)
        lines = np.concatenate(load_features(context.folder / "counts", _RANGES))
        save_array(context.folder / "decisions" / _FILE, lines)
        context.report.update(lines=len(lines), occurrences=int(lines["documents"].sum()))

    def apply(self, context: Context) -> PipelineStep:
        """Remove the lines."""
        path = context.folder / "decisions" / _FILE
        return _LineRemover(path, self.settings, context.exclusion_writer)


class _LineRemover(BaseFilter):
    name = LineDedup.name

    def __init__(
        self, path: Path, settings: LineDedupSettings, exclusion_writer: DocumentWriter | None
    ) -> None:
        super().__init__(exclusion_writer)
        self.path = path
        self.settings = settings

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents with something left."""
        rows = np.load(self.path)
        self._repeated = set(rows["line"].tolist())
        self._keep_once = set(rows["line"][rows["task"] == rank].tolist())
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Change one document; a line of which nothing is left goes with its end."""
        lines = split_units(doc, self.settings.unit)
        remaining = [list(filter(self._stays, line)) for line in lines]
        if remaining != lines:
            self.stat_update("changed_documents")
            texts = [
                "".join(new).rstrip()
                for new, old in zip(remaining, lines, strict=True)
                if new or not old
            ]
            doc.text = "\n".join(texts).strip()
        if not doc.text:
            return False, "nothing left"
        return True

    def _stays(self, unit: str) -> bool:
        if count_words(unit) < self.settings.min_words:
            return True
        key = line_hash(unit)
        if key not in self._repeated:
            return True
        is_first = key in self._keep_once
        self._keep_once.discard(key)
        return is_first
