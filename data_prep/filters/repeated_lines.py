"""Boilerplate: lines that stand in many documents are cut out of all but the first."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.corpus_step import Context, CorpusStep
from data_prep.hashing import stable_hash
from data_prep.words import count_words, plain_words
from galen.atomic import atomic_file

_FIRST = "first.npy"
_COUNT = np.dtype([("line", "<u8"), ("documents", "<u4")])
_CUT = np.dtype([("line", "<u8"), ("task", "<u4")])


def _rows(kind: np.dtype[Any], lines: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return rows of a line's hash and a number."""
    rows = np.empty(len(lines), dtype=kind)
    rows["line"], rows[kind.names[1]] = lines, numbers  # type: ignore[index]
    return rows


def line_hash(line: str) -> int:
    """Return the hash by which lines are compared: without case, accents and punctuation."""
    return stable_hash(" ".join(plain_words(line)))


class _LineNotes(PipelineStep):
    """Passes documents on and writes `<rank>.npy`: the sorted hashes of the different long lines of each document."""

    type = "NOTES"
    name = "lines"

    def __init__(self, folder: str, min_words: int) -> None:
        super().__init__()
        self.folder, self.min_words = folder, min_words

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents unchanged."""
        hashes: list[int] = []
        for document in data:
            hashes += {line_hash(line) for line in document.text.splitlines() if count_words(line) >= self.min_words}
            yield document
        with atomic_file(f"{self.folder}/{rank:05d}.npy") as path, path.open("wb") as file:
            values, counts = np.unique(np.array(hashes, dtype=np.uint64), return_counts=True)
            np.save(file, _rows(_COUNT, values, counts))


class RepeatedLines(CorpusStep):
    """Cuts lines of at least `min_words` words that stand in more than `max_documents` documents; the first document keeps them.

    Memory: 12 bytes for each different long line of the corpus, while it decides. Documents left empty are dropped.
    """

    name = "repeated_lines"

    def __init__(self, max_documents: int = 10, min_words: int = 4) -> None:
        self.max_documents, self.min_words = max_documents, min_words

    def notes(self, context: Context) -> list[PipelineStep]:
        """Hashes of lines."""
        return [_LineNotes(str(context.folder / "notes"), self.min_words)]

    def decide(self, context: Context) -> None:
        """Find the lines, and the first task that has each."""
        parts = [np.load(context.folder / f"notes/{task:05d}.npy") for task in range(context.tasks)]
        lines = np.concatenate([part["line"] for part in parts])
        values, places = np.unique(lines, return_inverse=True)
        totals = np.bincount(places, weights=np.concatenate([part["documents"] for part in parts]), minlength=len(values))
        tasks = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        first = np.full(len(values), context.tasks)
        np.minimum.at(first, places, tasks)
        wanted = totals > self.max_documents
        with atomic_file(context.folder / "verdicts" / _FIRST) as path, path.open("wb") as file:
            np.save(file, _rows(_CUT, values[wanted], first[wanted]))
        context.report.update(lines=int(wanted.sum()), occurrences=int(totals[wanted].sum()))

    def apply(self, context: Context) -> PipelineStep:
        """Cut them."""
        return _LineCutter(str(context.folder / "verdicts" / _FIRST), self.min_words)


class _LineCutter(BaseFilter):
    name = RepeatedLines.name

    def __init__(self, path: str, min_words: int) -> None:
        super().__init__()
        self.path, self.min_words = path, min_words

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents with something left."""
        rows = np.load(self.path)
        self._cut = set(rows["line"].tolist())
        self._keep_once = set(rows["line"][rows["task"] == rank].tolist())
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Cut one document."""
        kept, cut = [], 0
        for line in doc.text.split("\n"):
            if count_words(line) >= self.min_words and (key := line_hash(line)) in self._cut:
                if key not in self._keep_once:
                    cut += 1
                    continue
                self._keep_once.discard(key)
            kept.append(line)
        if cut:
            self.stat_update("changed_documents")
            doc.text = "\n".join(kept).strip()
        return bool(doc.text) or (False, "nothing else")
