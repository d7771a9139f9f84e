"""Third step of exact deduplication: dropping."""

from collections.abc import Iterator

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolderLike, get_datafolder
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.dedup.finder import KEEP, SAME_ID


class DuplicateFilter(BaseFilter):
    """Drops the documents that `DuplicateFinder` named; they must come in the order in which their signatures were written."""

    name = "duplicate"

    def __init__(self, verdicts: DataFolderLike) -> None:
        super().__init__()
        self.verdicts = get_datafolder(verdicts)

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of this task that stay."""
        with self.verdicts.open(f"{rank:05d}.npy") as file:
            self._next = iter(np.load(file, allow_pickle=False).tolist())
        yield from super().run(data, rank, world_size)
        assert next(self._next, None) is None, f"task {rank} has fewer documents than signatures"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        verdict = next(self._next)
        return verdict == KEEP or (False, "same id" if verdict == SAME_ID else "same text")
