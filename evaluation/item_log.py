"""Scored items on disk, one JSON line each, written as they come: what a killed run has scored is not scored again."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from galen.errors import DataError


class ItemLog:
    """The items of one task, appended to a JSONL file and flushed batch by batch.

    Opening drops a half line at the end, which a kill leaves behind.

    Raises:
        DataError: a whole line of the file is not an item.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.items: dict[str, dict[str, Any]] = {}
        self._file = self.path.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                item = orjson.loads(line)
                self.items[item["id"]] = item
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise DataError(f"{self.path}, line {number}: not a scored item; remove the folder and score again") from None

    def append(self, items: Iterable[Mapping[str, Any]]) -> int:
        """Write the items that are not there yet, hand them to the operating system, and return how many they were."""
        new = [dict(item) for item in items if item["id"] not in self.items]
        self._file.write(b"".join(orjson.dumps(item) + b"\n" for item in new))
        self._file.flush()
        self.items.update((item["id"], item) for item in new)
        return len(new)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
