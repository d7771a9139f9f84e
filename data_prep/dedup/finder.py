"""Second step of exact deduplication: which documents go."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolderLike, get_datafolder
from datatrove.pipeline.base import PipelineStep

KEEP, SAME_ID, SAME_TEXT = 0, 1, 2


def find_duplicates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a verdict (KEEP, SAME_ID, SAME_TEXT) for each row of (id hash, text hash), given in the order of the inputs.

    Of documents with the same id the last stays, as a later MEDLINE file corrects an earlier one; of the others with the same
    normalised text the first stays.
    """
    verdicts = np.full(len(rows), KEEP, dtype=np.uint8)
    by_id = np.argsort(rows["id"], kind="stable")
    followed = rows["id"][by_id][:-1] == rows["id"][by_id][1:]
    verdicts[by_id[:-1][followed]] = SAME_ID
    left = np.flatnonzero(verdicts == KEEP)
    by_text = left[np.argsort(rows["text"][left], kind="stable")]
    preceded = rows["text"][by_text][1:] == rows["text"][by_text][:-1]
    verdicts[by_text[1:][preceded]] = SAME_TEXT
    return verdicts


class DuplicateFinder(PipelineStep):
    """One task: reads the signatures of `tasks` tasks, 16 bytes a document in memory, and writes `<rank>.npy` of verdicts."""

    type = "DEDUP"
    name = "finder"

    def __init__(self, signatures: DataFolderLike, verdicts: DataFolderLike, tasks: int) -> None:
        super().__init__()
        self.signatures, self.verdicts, self.tasks = get_datafolder(signatures), get_datafolder(verdicts), tasks

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the verdicts; there are no documents to pass on."""
        parts = []
        for task in range(self.tasks):
            with self.signatures.open(f"{task:05d}.npy") as file:
                parts.append(np.load(file, allow_pickle=False))
        verdicts = find_duplicates(np.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts])
        for task, part in enumerate(np.split(verdicts, ends[:-1])):
            with self.verdicts.open(f"{task:05d}.npy", "wb") as file:
                np.save(file, part)
        yield from ()
