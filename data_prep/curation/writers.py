"""Documents to gzipped JSON lines whose bytes depend on the documents alone."""

import gzip
from pathlib import Path
from typing import Any, cast

from datatrove.data import Document
from datatrove.io import DataFolderLike, OutputFileManager
from datatrove.pipeline.writers.jsonl import JsonlWriter

from data_prep.curation.recipe import SplitFractions
from data_prep.curation.splits import repeats_in, split_of


class _Gzip(gzip.GzipFile):
    """A gzip member without name and time in its header; closes the file below it."""

    def __init__(self, raw: Any, level: int) -> None:
        super().__init__(filename="", mode="wb", compresslevel=level, fileobj=raw, mtime=0)
        self._raw_file = raw

    def close(self) -> None:
        super().close()
        self._raw_file.close()


def open_gzip(path: Path, level: int) -> gzip.GzipFile:
    """Open a gzip file for writing whose bytes depend on what is written alone."""
    return _Gzip(path.open("wb"), level)


class _GzipFiles(OutputFileManager):
    """datatrove's set of open output files, with `_Gzip` in place of fsspec's gzip.

    fsspec's writes the time into the header.
    """

    def __init__(self, fs: Any, level: int) -> None:
        super().__init__(fs, mode="wb", compression=None)
        self.level = level

    def get_file(self, filename: str) -> _Gzip:
        if filename not in self._output_files:
            self._output_files[filename] = _Gzip(self.fs.open(filename, "wb"), self.level)
        return cast(_Gzip, self._output_files[filename])


class RecordWriter(JsonlWriter):
    """Writes `<rank>.jsonl.gz`, one record a line: text, id, metadata."""

    name = "records"

    def __init__(
        self, folder: DataFolderLike, level: int = 6, filename: str = "${rank}.jsonl.gz"
    ) -> None:
        super().__init__(folder, output_filename=filename, compression=None)
        self.output_mg = _GzipFiles(self.output_folder, level)

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        return {"text": document.text, "id": document.id, "metadata": document.metadata}


class SplitWriter(RecordWriter):
    """Writes `<split>/<rank>.jsonl.gz` and counts documents and bytes of text.

    Documents are counted by split name, bytes as `text_bytes`.

    Documents that a mixture takes several times occur several times in the training split (see
    `repeats_in`).
    """

    name = "splits"

    def __init__(self, folder: DataFolderLike, fractions: SplitFractions, level: int = 6) -> None:
        super().__init__(folder, level, "${split}/${rank}.jsonl.gz")
        self.fractions = fractions

    def write(self, document: Document, rank: int = 0, **kwargs: Any) -> None:
        """Write one document into its split."""
        split = split_of(document.id, self.fractions)
        repeats = repeats_in(split, document)
        document.metadata.pop("repeats", None)
        for _ in range(repeats):
            super().write(document, rank, split=split, **kwargs)
        self.stat_update(split, value=repeats)
        self.stat_update("text_bytes", value=repeats * len(document.text.encode()))
        self.stat_update("extra_repeats", value=repeats - 1)
