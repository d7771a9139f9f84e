"""The current MEDLINE records.

The last version of each PMID over baseline and update files, less those that NLM deleted.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolderLike, get_datafolder
from datatrove.pipeline.base import PipelineStep

from data_prep.curation.input_files import folder_of, name_of
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.medline import DELETED, KEEP, SUPERSEDED, MedlineReader
from data_prep.readers.process import read_files
from data_prep.readers.record import Record

EVENT = np.dtype([("key", "<u8"), ("deletion", "?")])
_VERSION_BITS = 8
_MAX_DIGITS = 15
_BUCKET_ROWS = 4_000_000


def event_key(pmid: str, version: str | None) -> int:
    """Return PMID and version as one sortable number.

    Returns 0, meaning no PMID, if either is not a number or is out of range.
    """
    if not pmid.isdecimal() or len(pmid) > _MAX_DIGITS:
        return 0
    number = int(version[:_MAX_DIGITS]) if version and version.isdecimal() else 1
    return int(pmid) << _VERSION_BITS | min(number, 2**_VERSION_BITS - 1)


class PmidReader(MedlineReader):
    """Yields the PMIDs of each record, with their keys.

    Errors in a file are left to the actual reader, which meets and reports them again.
    """

    name = "versions"

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the PMIDs of a record: one, or those that are deleted."""
        element, _ = record.content
        is_deletion = element.tag == "DeleteCitation"
        pmids = []
        if is_deletion:
            pmids = element.findall("PMID")
        elif element.tag == "PubmedArticle":
            pmids = element.findall("MedlineCitation/PMID")[:1]
        for pmid in pmids:
            number = (pmid.text or "").strip()
            if number:
                key = event_key(number, pmid.get("Version"))
                yield Document("", number, metadata={"key": key, "deletion": is_deletion})


class VersionWriter(PipelineStep):
    """Writes `<task>.npy` of the `task`-th MEDLINE file.

    It has a row of `EVENT` for each record with a PMID and each deleted PMID, in order.
    """

    type = "INDEX"
    name = "versions"

    def __init__(self, files: Sequence[tuple[str, ReaderOptions]], folder: DataFolderLike) -> None:
        super().__init__()
        self.files = list(files)
        self.folder = get_datafolder(folder)

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the rows; there are no documents to pass on."""
        path, options = self.files[rank]
        events: list[tuple[int, bool]] = []
        for batch in read_files(
            [(partial(PmidReader, folder_of(path), options), name_of(path))], options
        ):
            events += [
                (document.metadata["key"], document.metadata["deletion"])
                for document in batch.documents
            ]
        rows = np.array(events, dtype=EVENT)
        with self.folder.open(f"{rank:05d}.npy", "wb") as file:
            np.save(file, rows)
        yield from ()


class VersionResolver(PipelineStep):
    """One task: reads the rows of all files and writes `<task>.npy` into `decisions`.

    It has a number for each record, without the deletions.
    """

    type = "INDEX"
    name = "version resolver"

    def __init__(
        self,
        rows: DataFolderLike,
        decisions: DataFolderLike,
        tasks: int,
        bucket_rows: int = _BUCKET_ROWS,
    ) -> None:
        super().__init__()
        self.rows = get_datafolder(rows)
        self.decisions = get_datafolder(decisions)
        self.tasks = tasks
        self.bucket_rows = bucket_rows

    def _load(self, task: int) -> np.ndarray[Any, Any]:
        with self.rows.open(f"{task:05d}.npy") as file:
            return np.load(file, allow_pickle=False)

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the decisions."""
        sizes = [len(self._load(task)) for task in range(self.tasks)]
        starts = np.cumsum([0, *sizes])
        decisions = np.full(starts[-1], KEEP, dtype=np.uint8)
        buckets = int(starts[-1]) // self.bucket_rows + 1
        for bucket in range(buckets):
            rows = []
            positions = []
            for task in range(self.tasks):
                task_rows = self._load(task)
                in_bucket = np.flatnonzero((task_rows["key"] >> _VERSION_BITS) % buckets == bucket)
                rows.append(task_rows[in_bucket])
                positions.append(in_bucket + starts[task])
            decisions[np.concatenate(positions)] = resolve_versions(np.concatenate(rows))
        for task in range(self.tasks):
            records = decisions[starts[task] : starts[task + 1]][~self._load(task)["deletion"]]
            with self.decisions.open(f"{task:05d}.npy", "wb") as file:
                np.save(file, records)
        yield from ()


def resolve_versions(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a decision for each row of `EVENT`, given in order.

    Rows of deletions get one that means nothing.
    """
    decisions = np.full(len(rows), SUPERSEDED, dtype=np.uint8)
    order = np.argsort(rows["key"], kind="stable")
    keys = rows["key"][order]
    last = np.flatnonzero(_is_last(keys))
    is_deleted = rows["deletion"][order[last]]
    lengths = np.diff(last, prepend=-1)
    decisions[order[np.repeat(is_deleted, lengths)]] = DELETED
    remaining = last[~is_deleted]  # ordered by PMID, then version
    is_highest = _is_last(keys[remaining] >> _VERSION_BITS)
    decisions[order[remaining[is_highest]]] = KEEP
    decisions[rows["key"] == 0] = KEEP
    return decisions


def _is_last(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return for each of the sorted values whether it is the last of its equals."""
    if not len(values):
        return np.empty(0, dtype=bool)
    return np.append(values[1:] != values[:-1], True)
