"""Scored samples on disk, one JSON line each, flushed at once, so that a restart resumes."""

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from galen.errors import DataError


def file_name(task: str, run: int | str = "", order: int = 0) -> str:
    """Return the file names of a task's samples and prompts.

    Args:
        task: its name.
        run: the run, if there are several.
        order: number of the options' order; 0 is the original one.
    """
    task = task.replace(":", ".").replace("/", ".")
    name = f"{task}@{run}" if run != "" else task
    return f"{name}.order{order}.jsonl" if order else f"{name}.jsonl"


def parts(path: Path) -> list[Path]:
    """Return the files of a task's samples: the first process', and other processes' if any."""
    return [
        file
        for file in [path, *sorted(path.parent.glob(f"{glob.escape(path.stem)}.rank*.jsonl"))]
        if file.exists()
    ]


class SampleLog:
    """The samples of one task, appended to a JSONL file and flushed batch by batch.

    Each of several processes but the first has a file of its own, TASK.rankN.jsonl; opening reads
    those of the others too. It drops the half line at the end of its own file that a kill leaves
    behind.

    Raises:
        DataError: a complete line of the file is not a sample.
    """

    def __init__(self, path: str | Path, rank: int = 0) -> None:
        self.path = Path(path)
        """The file of the first process."""
        own = self.path.with_name(f"{self.path.stem}.rank{rank}.jsonl") if rank else self.path
        own.parent.mkdir(parents=True, exist_ok=True)
        self.samples: dict[str, dict[str, Any]] = {}
        self._file = own.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)
        for path in parts(self.path):
            self._read(path)

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        # a half line at the end of another's file is being written
        complete = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                sample = orjson.loads(line)
                if not isinstance(sample["id"], str):
                    raise TypeError
                self.samples.setdefault(sample["id"], sample)
            except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
                raise DataError(
                    f"{path}, line {number}: not a scored sample; remove the folder and score again"
                ) from None

    def append(self, samples: Iterable[Mapping[str, Any]]) -> int:
        """Write and flush the samples that are not in the log yet; return their number."""
        new = [dict(sample) for sample in samples if sample["id"] not in self.samples]
        self._file.write(b"".join(orjson.dumps(sample) + b"\n" for sample in new))
        self._file.flush()
        self.samples.update((sample["id"], sample) for sample in new)
        return len(new)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
