"""The list of downloaded files: `downloads.jsonl`, one line per file."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from data_prep.fetching.item import RECORD_NAME, Item


class Record:
    """The list in an output folder. An incomplete line of a killed run is skipped."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD_NAME
        self.folder = folder
        self._lock = threading.Lock()
        self._ends_in_line = False
        """Whether the file ends in an incomplete line."""
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8")
            for line in text.split("\n"):  # splitlines() also splits at U+2028
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                self.entries[entry["name"]] = entry
            self._ends_in_line = bool(text) and not text.endswith("\n")

    def is_current(self, item: Item) -> bool:
        """Return whether a file exists in its currently published version."""
        entry = self.entries.get(item.name)
        path = self.folder / item.name
        if entry is None or not path.is_file() or path.stat().st_size != entry["bytes"]:
            return False
        if item.size is not None and item.size != entry["bytes"]:
            return False
        return item.checksum is None or item.checksum[1] == entry.get("checksum")

    def add(self, name: str, **fields: Any) -> None:
        """Add a downloaded file."""
        entry = {"name": name, **fields, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        with self._lock:
            self.entries[name] = entry
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._ends_in_line + json.dumps(entry, ensure_ascii=False) + "\n")
            self._ends_in_line = False
