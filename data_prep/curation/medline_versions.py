"""The MEDLINE records that count.

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
_MOST_DIGITS = 15
_BUCKET_ROWS = 4_000_000


def event_key(pmid: str, version: str | None) -> int:
    """Return PMID and version as one sortable number.

    Returns 0, which stands for no PMID, if either is not a number or is out of range.
    """
    if not pmid.isdecimal() or len(pmid) > _MOST_DIGITS:
        return 0
    number = int(version[:_MOST_DIGITS]) if version and version.isdecimal() else 1
    return int(pmid) << _VERSION_BITS | min(number, 2**_VERSION_BITS - 1)


class PmidReader(MedlineReader):
    """Yields the PMIDs of each record, with their keys.

    Errors in a file are left to the actual reader, which meets and reports them again.
    """

    name = "versions"

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the PMIDs of a record: one, or those that are deleted."""
        element, _ = record.content
        deletion = element.tag == "DeleteCitation"
        article = element.tag == "PubmedArticle"
        for found in (
            element.findall("PMID")
            if deletion
            else element.findall("MedlineCitation/PMID")[:1]
            if article
            else ()
        ):
            pmid = (found.text or "").strip()
            if pmid:
                yield Document(
                    "",
                    pmid,
                    metadata={"key": event_key(pmid, found.get("Version")), "deletion": deletion},
                )


class VersionWriter(PipelineStep):
    """Writes `<task>.npy` of the `task`-th MEDLINE file.

    It has a row of `EVENT` for each record with a PMID and each deleted PMID, in order.
    """

    type = "INDEX"
    name = "versions"

    def __init__(self, files: Sequence[tuple[str, ReaderOptions]], folder: DataFolderLike) -> None:
        super().__init__()
        self.files, self.folder = list(files), get_datafolder(folder)

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


class VersionFinder(PipelineStep):
    """One task: reads the rows of all files and writes `<task>.npy` into `verdicts`.

    It has a number for each record, without the deletions.
    """

    type = "INDEX"
    name = "version finder"

    def __init__(
        self,
        rows: DataFolderLike,
        verdicts: DataFolderLike,
        tasks: int,
        bucket_rows: int = _BUCKET_ROWS,
    ) -> None:
        super().__init__()
        self.rows, self.verdicts, self.tasks, self.bucket_rows = (
            get_datafolder(rows),
            get_datafolder(verdicts),
            tasks,
            bucket_rows,
        )

    def _load(self, task: int) -> np.ndarray[Any, Any]:
        with self.rows.open(f"{task:05d}.npy") as file:
            return np.load(file, allow_pickle=False)

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the verdicts."""
        starts = np.concatenate(
            [[0], np.cumsum([len(self._load(task)) for task in range(self.tasks)])]
        )
        verdicts = np.full(starts[-1], KEEP, dtype=np.uint8)
        buckets = int(starts[-1]) // self.bucket_rows + 1
        for bucket in range(buckets):
            parts, places = [], []
            for task in range(self.tasks):
                rows = self._load(task)
                mine = np.flatnonzero((rows["key"] >> _VERSION_BITS) % buckets == bucket)
                parts.append(rows[mine])
                places.append(mine + starts[task])
            verdicts[np.concatenate(places)] = judge(np.concatenate(parts))
        for task in range(self.tasks):
            records = verdicts[starts[task] : starts[task + 1]][~self._load(task)["deletion"]]
            with self.verdicts.open(f"{task:05d}.npy", "wb") as file:
                np.save(file, records)
        yield from ()


def judge(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a verdict for each row of `EVENT`, given in order.

    Rows of deletions get one that means nothing.
    """
    verdicts = np.full(len(rows), SUPERSEDED, dtype=np.uint8)
    order = np.argsort(rows["key"], kind="stable")
    keys = rows["key"][order]
    last = (
        np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
        if len(keys)
        else np.empty(0, dtype=np.int64)
    )
    gone = rows["deletion"][order[last]]
    lengths = np.diff(last, prepend=-1)
    verdicts[order[np.repeat(gone, lengths)]] = DELETED
    left = last[~gone]  # ordered by PMID, then version
    pmids = keys[left] >> _VERSION_BITS
    highest = np.append(pmids[1:] != pmids[:-1], True) if len(pmids) else np.empty(0, dtype=bool)
    verdicts[order[left[highest]]] = KEEP
    verdicts[rows["key"] == 0] = KEEP
    return verdicts
