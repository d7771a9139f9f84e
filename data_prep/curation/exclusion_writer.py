"""Dropped documents: a few samples of each reason always, all of them on request."""

import json
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from datatrove.data import Document

from data_prep.curation.writers import RecordWriter
from data_prep.text.hashing import unit_hash
from galen import json_file

SAMPLES = 5
"""Samples of each reason in the report."""

_MAX_CHARACTERS = 1500


class Samples:
    """The few documents with the lowest hash of their identifier, for each reason.

    The same whichever task meets them.
    """

    def __init__(self) -> None:
        self.lowest: dict[str, list[tuple[float, str, str]]] = defaultdict(list)

    def add(self, reason: str, document: Document) -> None:
        """Consider one document."""
        lowest = self.lowest[reason]
        position = unit_hash("sample", document.id)
        if len(lowest) < SAMPLES or position < lowest[-1][0]:
            lowest.append((position, document.id, document.text[:_MAX_CHARACTERS]))
            lowest.sort()
            del lowest[SAMPLES:]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.lowest, ensure_ascii=False), encoding="utf-8")


class ExclusionWriter:
    """datatrove's `exclusion_writer` of one step of a stage.

    Args:
        step: the step's name.
        prefix: of the files' names; no other step of the corpus has it.
        samples: folder for samples, `<prefix>-<rank>.json`.
        documents: folder in which all dropped documents are written to
            `<step>/<prefix>-<rank>.jsonl.gz`, or None.
    """

    def __init__(self, step: str, prefix: str, samples: Path, documents: Path | None) -> None:
        self.step = step
        self.prefix = prefix
        self.folder = samples
        self.writer: RecordWriter | None = None
        if documents is not None:
            filename = f"{prefix}-${{rank}}.jsonl.gz"
            self.writer = RecordWriter(str(documents / step), filename=filename)

    def __enter__(self) -> Self:
        self.samples = Samples()
        self.rank = 0
        if self.writer is not None:
            self.writer.__enter__()
        return self

    def write(self, document: Document, rank: int = 0) -> None:
        """Record a dropped document, with the reason in its metadata."""
        self.rank = rank
        reason = document.metadata.get("filter_reason", "dropped")
        self.samples.add(f"{self.step}: {reason}", document)
        if self.writer is not None:
            self.writer.write(document, rank)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.writer is not None:
            self.writer.__exit__(error_type, error, trace)
        if error_type is None and self.samples.lowest:
            self.samples.save(self.folder / f"{self.prefix}-{self.rank:05d}.json")


def merge_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of all tasks: reason -> records of id and the beginning of the text."""
    merged: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        for reason, samples in json_file.read_object(path).items():
            merged[reason] += [tuple(sample) for sample in samples]
    return {reason: _lowest(samples) for reason, samples in sorted(merged.items())}


def _lowest(samples: list[tuple[float, str, str]]) -> list[dict[str, Any]]:
    """Return the samples of the lowest hashes as records."""
    return [{"id": id, "text": text} for _, id, text in sorted(samples)[:SAMPLES]]
