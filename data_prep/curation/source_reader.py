"""All input files of a recipe, divided into tasks, each file read by its own reader."""

import importlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolder, DataFolderLike, get_datafolder
from datatrove.pipeline.base import PipelineStep

from data_prep.curation.input_files import InputFile, folder_of, name_of
from data_prep.readers import READERS
from data_prep.readers.base import SourceReader
from data_prep.readers.medline import MedlineReader
from data_prep.readers.process import read_files
from data_prep.readers.record import QuarantinedRecord, printable

_PROGRESS_SECONDS = 0.5


class SourceFiles(PipelineStep):
    """Reads the files of the `rank`-th task.

    The content of a task never depends on the number of workers.

    Bad records, and the rest of a file that breaks off, go to `<rank>.jsonl` in the folder
    `quarantine`, with file and position, and reading continues. About twice a second it writes to
    `progress/` of `logging_dir` how many bytes are read. Names in its statistics, besides those of
    the readers: `input_files`, `broken files`.

    Args:
        tasks: the files of each task.
        logging_dir: the executor's.
        quarantine: folder for what could not be read; None leaves no record.
        decisions: folder with `<n>.npy` for the n-th MEDLINE file of all tasks
            (data_prep/curation/medline_versions.py); None keeps all its
        records.
    """

    type = "READER"
    name = "sources"

    def __init__(
        self,
        tasks: Sequence[Sequence[InputFile]],
        logging_dir: DataFolderLike,
        quarantine: DataFolderLike | None = None,
        decisions: DataFolderLike | None = None,
    ) -> None:
        super().__init__()
        self.tasks = [list(files) for files in tasks]
        self.logging_dir: DataFolder = get_datafolder(logging_dir)
        self.quarantine_folder: DataFolder | None = (
            None if quarantine is None else get_datafolder(quarantine)
        )
        self.decision_folder: DataFolder | None = (
            None if decisions is None else get_datafolder(decisions)
        )

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task's files."""
        self._rank = rank
        self._invalid: list[QuarantinedRecord] = []
        self._last_progress = time.monotonic()
        files = self.tasks[rank]
        for library in READERS[files[0].reader].libraries:
            importlib.import_module(library)
        readers = [(partial(self._reader, file), name_of(file.path)) for file in files]
        bytes_before = 0  # of the files before the current one
        records_before = 0
        for batch in read_files(readers, files[0].options):
            file = files[batch.file]
            for label, count in batch.counts.items():
                self.stat_update(label, value=count)
            self._invalid += batch.bad
            if time.monotonic() - self._last_progress > _PROGRESS_SECONDS:
                self._write_progress(bytes_before + batch.position)
            yield from batch.documents
            if batch.broken is not None:
                self.stat_update("broken files")
                position = f"after record {self._num_records() - records_before}"
                self._invalid.append(
                    QuarantinedRecord(printable(file.path), position, "broken file", batch.broken)
                )
            if batch.finished:
                self.stat_update("input_files")
                records_before = self._num_records()
                bytes_before += file.size
                self._write_progress(bytes_before)
        self._write_quarantine()

    def _reader(self, file: InputFile) -> SourceReader:
        """Return the reader of a file; called in its process."""
        folder = folder_of(file.path)
        if file.reader == MedlineReader.name and self.decision_folder is not None:
            return MedlineReader(folder, file.options, self._decisions_of(file))
        return READERS[file.reader](folder, file.options)

    def _decisions_of(self, file: InputFile) -> list[int]:
        """Return the decisions on a MEDLINE file's records.

        MEDLINE files are numbered over all tasks, and each has a task of its own.
        """
        assert self.decision_folder is not None
        number = sum(task[0].reader == "medline" for task in self.tasks[: self._rank])
        with self.decision_folder.open(f"{number:05d}.npy") as stored:
            decisions: Any = np.load(stored, allow_pickle=False)
        return list(decisions.tolist())

    def _num_records(self) -> int:
        """Return the number of records that this task has read."""
        return int(self.stats["total"].total)

    def _write_quarantine(self) -> None:
        if not self._invalid or self.quarantine_folder is None:
            return
        with self.quarantine_folder.open(f"{self._rank:05d}.jsonl", "w", encoding="utf-8") as file:
            for record in self._invalid:
                file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")

    def _write_progress(self, bytes_read: int) -> None:
        self._last_progress = time.monotonic()
        with self.logging_dir.open(f"progress/{self._rank:05d}", "w") as file:
            file.write(str(bytes_read))
