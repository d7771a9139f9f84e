"""The list of downloaded files: `downloads.jsonl`, a line a file."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from data_prep.fetching.transfer import Item

NAME = "downloads.jsonl"


class Record:
    """The list in an output folder. An incomplete line of a killed run is skipped."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.folder = folder
        self._lock = threading.Lock()
        self._broken = False
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8")
            for line in text.split("\n"):  # splitlines() also parts at U+2028
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                self.entries[entry["name"]] = entry
            self._broken = bool(text) and not text.endswith("\n")

    def has(self, item: Item) -> bool:
        """Say whether a file is there as it is published now."""
        entry = self.entries.get(item.name)
        path = self.folder / item.name
        if entry is None or not path.is_file() or path.stat().st_size != entry["bytes"]:
            return False
        return (item.size is None or item.size == entry["bytes"]) and (
            item.checksum is None or item.checksum[1] == entry.get("checksum")
        )

    def add(self, name: str, **known: Any) -> None:
        """Note a file that has come."""
        entry = {"name": name, **known, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        with self._lock:
            self.entries[name] = entry
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._broken + json.dumps(entry, ensure_ascii=False) + "\n")
            self._broken = False
