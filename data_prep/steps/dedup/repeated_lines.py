"""Boilerplate: lines, or sentences, of many documents are cut out of all but the first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.steps.global_step import Context, CorpusStep, load_notes, save_array
from data_prep.text.hashing import stable_hash
from data_prep.text.sentences import SentenceSplitter
from data_prep.text.words import count_words, plain_words

Unit = Literal["line", "sentence"]
_FIRST = "first.npy"
_FOUND = np.dtype([("line", "<u8"), ("documents", "<u4"), ("task", "<u4")])
_RANGES = 64


def pieces_of(document: Document, unit: Unit) -> list[list[str]]:
    """Return the pieces of each line of a document, which joined are the line.

    A piece is the line itself, or a sentence of it.
    """
    lines = document.text.split("\n")
    if unit == "line":
        return [[line] for line in lines]
    splitter = SentenceSplitter(document.metadata.get("text_language", "en"), keep_newlines=True)
    return [splitter.split(line) for line in lines]


def line_hash(line: str) -> int:
    """Return the hash by which lines are compared: without case, accents and punctuation."""
    return stable_hash(" ".join(plain_words(line)))


class _LineNotes(PipelineStep):
    """Passes documents on and writes the sorted hashes of their long lines, with counts.

    The hashes go to `lines/`, the number of documents of each to `documents/`.
    """

    type = "NOTES"
    name = "lines"

    def __init__(self, folder: Path, min_words: int, unit: Unit) -> None:
        super().__init__()
        self.folder, self.min_words, self.unit = folder, min_words, unit

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        hashes: list[int] = []
        for document in data:
            pieces = (piece for line in pieces_of(document, self.unit) for piece in line)
            hashes += {line_hash(piece) for piece in pieces if count_words(piece) >= self.min_words}
            yield document
        values, counts = np.unique(np.array(hashes, dtype=np.uint64), return_counts=True)
        for name, rows in (("lines", values), ("documents", counts.astype(np.uint32))):
            save_array(self.folder / name / f"{rank:05d}.npy", rows)


class _LineCounts(PipelineStep):
    """Task `rank` counts the lines of one range of the hashes.

    Those of more than `most` documents are written to `counts/<rank>.npy`.
    """

    type = "DEDUP"
    name = "count"

    def __init__(self, folder: Path, tasks: int, most: int) -> None:
        super().__init__()
        self.folder, self.tasks, self.most = folder, tasks, most

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the lines of this range."""
        size = 2**64 // _RANGES
        parts = []
        for task in range(self.tasks):
            lines, documents = (
                np.load(self.folder / f"notes/{name}/{task:05d}.npy", mmap_mode="r")
                for name in ("lines", "documents")
            )
            first = int(np.searchsorted(lines, np.uint64(rank * size)))
            last = int(np.searchsorted(lines, np.uint64((rank + 1) * size - 1), side="right"))
            part = np.empty(last - first, dtype=_FOUND)
            part["line"], part["documents"], part["task"] = (
                lines[first:last],
                documents[first:last],
                task,
            )
            parts.append(part)
        found = np.concatenate(parts)
        # of one line the tasks stay in order
        found = found[np.argsort(found["line"], kind="stable")]
        starts = np.flatnonzero(np.diff(found["line"], prepend=~found["line"][:1]))
        totals = np.add.reduceat(found["documents"], starts) if len(starts) else found["documents"]
        kept = found[starts]
        kept["documents"] = totals
        save_array(self.folder / f"counts/{rank:05d}.npy", kept[totals > self.most])
        yield from ()


class RepeatedLines(CorpusStep):
    """Cuts lines, or sentences, that occur in more than `max_documents` documents.

    Only those of at least `min_words` words count; the first document keeps them.

    Lines are counted in 64 tasks, each for a range of the hashes. Memory: 22 bytes a document of 16
    such lines (benchmarks/curate_memory.py). Documents left empty are dropped.
    """

    name = "line_dedup"

    def __init__(self, max_documents: int, min_words: int, unit: Unit) -> None:
        self.max_documents, self.min_words, self.unit = max_documents, min_words, unit

    def notes(self, context: Context) -> list[PipelineStep]:
        """Hashes of lines."""
        return [_LineNotes(context.folder / "notes", self.min_words, self.unit)]

    def decide(self, context: Context) -> None:
        """Find the lines, and the first task that has each."""
        context.run(
            "count", [_LineCounts(context.folder, context.tasks, self.max_documents)], _RANGES
        )
        found = np.concatenate(load_notes(context.folder / "counts", _RANGES))
        save_array(context.folder / "verdicts" / _FIRST, found)
        context.report.update(lines=len(found), occurrences=int(found["documents"].sum()))

    def apply(self, context: Context) -> PipelineStep:
        """Cut them."""
        return _LineCutter(context.folder / "verdicts" / _FIRST, self.min_words, self.unit)


class _LineCutter(BaseFilter):
    name = RepeatedLines.name

    def __init__(self, path: Path, min_words: int, unit: Unit) -> None:
        super().__init__()
        self.path, self.min_words, self.unit = path, min_words, unit

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents with something left."""
        rows = np.load(self.path)
        self._cut = set(rows["line"].tolist())
        self._keep_once = set(rows["line"][rows["task"] == rank].tolist())
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Cut one document; a line of which nothing is left goes with its end."""
        lines = pieces_of(doc, self.unit)
        kept = [[piece for piece in line if self._stays(piece)] for line in lines]
        if kept != lines:
            self.stat_update("changed_documents")
            left = (
                "".join(new).rstrip()
                for new, old in zip(kept, lines, strict=True)
                if new or not old
            )
            doc.text = "\n".join(left).strip()
        return bool(doc.text) or (False, "nothing else")

    def _stays(self, piece: str) -> bool:
        if count_words(piece) < self.min_words or (key := line_hash(piece)) not in self._cut:
            return True
        once = key in self._keep_once
        self._keep_once.discard(key)
        return once
