"""All input files of a recipe as one list, one task for each."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from datatrove.data import Document
from datatrove.io import DataFolder, DataFolderLike, get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers.base import BaseDiskReader

from data_prep.readers import READERS


class SourceFiles(PipelineStep):
    """Reads the `rank`-th of the files, each with its own reader, so that what a task does never depends on the number of workers.

    About twice a second it notes in `progress/` of `logging_dir` how many bytes of the file are read.

    Args:
        files: pairs of a reader's name in `READERS` and a path.
        logging_dir: the executor's.
    """

    type = "READER"
    name = "sources"

    def __init__(self, files: Sequence[tuple[str, str]], logging_dir: DataFolderLike) -> None:
        super().__init__()
        self.files = list(files)
        self.logging_dir: DataFolder = get_datafolder(logging_dir)

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of this task's file."""
        kind, path = self.files[rank]
        folder, _, name = path.rpartition("/")
        reader: BaseDiskReader = READERS[kind](folder or ".", add_file_path=False)
        reader.stats = self.stats  # the reader counts what it drops; the executor saves the statistics of this step
        noted = time.monotonic()
        for document in reader.read_files_shard([name]):
            yield document
            if time.monotonic() - noted > 0.5:
                noted = time.monotonic()
                self._note(rank, reader.raw.tell())
        self._note(rank, Path(path).stat().st_size)

    def _note(self, rank: int, position: int) -> None:
        with self.logging_dir.open(f"progress/{rank:05d}", "w") as file:
            file.write(str(position))
