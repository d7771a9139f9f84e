"""Data sets of lm-evaluation-harness' tasks from local files; nothing is downloaded.

While `LocalDatasets.redirect` is active, `datasets.load_dataset` reads

    DATA/<dataset_path>/<configuration>/<split>.{jsonl,json,csv,parquet}

or a `datasets` cache that was made with `cache_dir=DATA`. Shards of a split as on the hub
(`test-00000-of-00001.parquet`) are read, too.

Imports `datasets`, which comes with lm-evaluation-harness.
"""

import contextlib
import itertools
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import huggingface_hub.constants
import pandas
import pyarrow.parquet

from evaluation.question_sets import rows
from galen.errors import DataError, GalenError, one_line

_FILE = re.compile(r"(?P<split>.+?)(-\d+-of-\d+)?\.(jsonl|jsonl\.gz|json|csv|parquet)")
_PACKAGED = ("json", "csv", "parquet", "text")
"""Values of `dataset_path` that are formats of the files in `data_files`."""


class LocalDatasets:
    """A folder of data sets.

    Args:
        data: the folder.
        task: the task in messages.
    """

    def __init__(self, data: Path, task: str) -> None:
        self.data = data
        self.task = task
        self.files: list[Path] = []
        """The files that were read."""

    @contextlib.contextmanager
    def redirect(self) -> Iterator[None]:
        """Read all data sets from the folder, and keep the libraries off the network."""
        original = datasets.load_dataset

        def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
            return self._load(original, path, name, options)

        def load_metric(path: str, *_: Any, **__: Any) -> Any:
            raise DataError(
                f"lm_eval:{self.task} needs the metric {path} of the library `evaluate`, which is"
                " code that it downloads; Galen does not"
            )

        with (
            _replaced(datasets, "load_dataset", load_dataset),
            _replaced(evaluate, "load", load_metric),
            _replaced(socket, "getaddrinfo", _refuse),
            _replaced(datasets.config, "HF_HUB_OFFLINE", True),
            _replaced(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        ):
            yield

    def _load(
        self, original: Callable[..., Any], path: str, name: str | None, options: dict[str, Any]
    ) -> Any:
        """Return what `datasets.load_dataset` returns.

        Raises:
            DataError: the data set is missing or damaged.
        """
        data_files = options.get("data_files")
        if data_files is not None and path in _PACKAGED:
            splits = self._data_files(data_files)
        else:
            splits = self._folder_splits(path, name or options.get("data_dir"))
        if splits:
            self.files += [file for files in splits.values() for file in files]
            loaded = _Splits({split: _dataset(files) for split, files in splits.items()})
        else:
            loaded = self._cached(original, path, name)
        loaded.source = f"lm_eval:{self.task}: the data set {path} in {self.data}"
        split = options.get("split")
        return loaded if split is None else loaded[split]

    def _folder_splits(self, path: str, name: str | None) -> dict[str, list[Path]]:
        """Return the files of each split in the data set's folder; empty without any."""
        folder = self.data / path
        candidates = [folder / name] if name else []
        if name in (None, "default", "main"):
            candidates += [folder, folder / "data"]
        for candidate in candidates:
            splits = _splits(candidate)
            if splits:
                return splits
        return {}

    def _data_files(self, data_files: Any) -> dict[str, list[Path]]:
        """Return the files of each split in a task's `data_files`: local ones, or below DATA."""
        by_split = data_files if isinstance(data_files, Mapping) else {"train": data_files}
        splits: dict[str, list[Path]] = {}
        for split, value in by_split.items():
            names = [value] if isinstance(value, str) else list(value)
            splits[str(split)] = [self._data_file(name) for name in names]
        return splits

    def _data_file(self, name: str) -> Path:
        path = self.data / (name.rpartition("/")[2] if "://" in name else name)
        if not path.is_file():
            raise DataError(f"lm_eval:{self.task} reads {name}: put it at {path}")
        return path

    def _cached(self, original: Callable[..., Any], path: str, name: str | None) -> Any:
        """Return a data set from a `datasets` cache in DATA.

        Raises:
            DataError: there is none.
        """
        if not any(self.data.glob("*___*")):
            raise self._missing(path, name)
        try:
            loaded = original(path, name, cache_dir=str(self.data))
        # the library raises many types, of its own, of the network, of the file system
        except Exception:
            raise self._missing(path, name) from None
        for dataset in loaded.values():
            self.files += [Path(file["filename"]) for file in dataset.cache_files]
        return _Splits(loaded)

    def _missing(self, path: str, name: str | None) -> DataError:
        folder = self.data / path / (name or "")
        configuration = f" (configuration {name})" if name else ""
        return DataError(
            f"lm_eval:{self.task} reads the data set {path}{configuration}, which is not in"
            f" {self.data}: put its rows into {folder}/SPLIT.jsonl (or .json, .csv, .parquet;"
            " SPLIT: train, validation, test …), or give a `datasets` cache as --data; nothing is"
            " downloaded"
        )


class _Splits(datasets.DatasetDict):
    """Data sets by split; names the file of a missing one."""

    source = ""

    def __missing__(self, split: str) -> Any:
        raise DataError(
            f"{self.source} has no split {split!r}, only {', '.join(self)}: add the file"
            f" {split}.jsonl"
        )


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a module while the block runs."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _refuse(host: Any, *_: Any, **__: Any) -> Any:
    """Refuse the look-up of a host."""
    raise OSError(f"{host} is not reachable: tasks are loaded offline")


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split in a folder; empty without any."""
    splits: dict[str, list[Path]] = {}
    if not folder.is_dir():
        return splits
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and path.is_file() and not path.name.startswith("."):
            splits.setdefault(match["split"], []).append(path)
    return splits


def _dataset(files: Sequence[Path]) -> Any:
    """Return the rows of files as a `datasets.Dataset` in memory.

    Raises:
        DataError: a file is damaged, or its rows do not have the same columns and types.
    """
    try:
        parts = [_file_dataset(path) for path in files]
        return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    except GalenError:
        raise
    # pyarrow and pandas raise their own
    except Exception as error:
        names = ", ".join(map(str, files))
        raise DataError(
            f"{names}: cannot be read as rows of a data set: {one_line(error)}"
        ) from None


def _file_dataset(path: Path) -> Any:
    """Return the rows of one file."""
    if path.suffix == ".parquet":
        return datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(path)))
    if path.suffix == ".csv":
        # as `datasets` reads it, which infers the types of columns
        return datasets.Dataset.from_pandas(pandas.read_csv(path), preserve_index=False)
    records = [row.record for row in rows.read(path)]
    # `from_list` takes the columns of the first record only
    columns = dict.fromkeys(itertools.chain.from_iterable(records))
    return datasets.Dataset.from_dict(
        {column: [record.get(column) for record in records] for column in columns}
    )
