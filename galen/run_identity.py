"""What decides the output of a run: its configuration and its input files.

The same identity means the same output; `galen.run_folder` resumes, discards or refuses by it.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galen import __version__, manifest

VERSION = __version__
"""Of Galen; one output never mixes two."""

_MAX_CHARACTERS = 60
_STAT = ("path", "bytes", "mtime_ns")
"""Fields of an input's record; when all are equal, the file is not hashed."""


@dataclass(frozen=True)
class Identity:
    """What decides an output.

    Args:
        config: settings, of JSON types.
        inputs: records of the input files, in order: `path` and either `sha256` (see
            `manifest.describe_file`), the `version` of a remote file, or `bytes` and `mtime_ns`
            (see `stat_record`). None where the configuration alone decides.
        may_change: dotted keys of `config`, of values or sections, that do not change the output.
    """

    config: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]] | None = None
    may_change: Collection[str] = ()

    def differences(self, earlier: "Identity") -> list[str]:
        """Return how this identity differs from an earlier run's, in words; empty for the same.

        Input files are compared by name and content. One without a hash is hashed, unless its path,
        size and time of change are those of the earlier record.
        """
        changes = [
            f"{key}: {_shown(before)} → {_shown(now)}"
            for key, before, now in config_differences(earlier.config, plain(self.config))
            if not self._may_change(key)
        ]
        if self.inputs is not None:
            changes += _input_differences(earlier.inputs or (), self.inputs)
        return changes

    def record(self) -> dict[str, Any]:
        """Return what an unfinished run is resumed by, of JSON types: it must be equal."""
        config = self._decisive(self.config)
        record = {"galen": VERSION, "inputs": list(self.inputs or ()), "config": config}
        return dict(plain(record))

    def _decisive(self, section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Return a section without the keys that may change."""
        decisive = {}
        for name, value in section.items():
            key = f"{prefix}{name}"
            if not self._may_change(key):
                is_section = isinstance(value, Mapping)
                decisive[name] = self._decisive(value, f"{key}.") if is_section else value
        return decisive

    def _may_change(self, key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in self.may_change)


def stat_record(path: Path) -> dict[str, Any]:
    """Return the record of a file by path, size and time of change, without reading it."""
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def config_differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted key, the earlier and the present value of each difference.

    A missing key counts as None. Lists of mappings of the same length are compared item by item.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            path = f"{key}.{name}" if key else str(name)
            yield from config_differences(before.get(name), now.get(name), path)
    elif _is_list_of_mappings(before) and _is_list_of_mappings(now) and len(before) == len(now):
        for number, (item_before, item_now) in enumerate(zip(before, now, strict=True)):
            yield from config_differences(item_before, item_now, f"{key}.{number}")
    elif before != now:
        yield key, before, now


def _input_differences(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return which input files differ, by name."""
    names_before = [Path(record["path"]).name for record in before]
    names_now = [Path(record["path"]).name for record in now]
    if names_before == names_now:
        pairs = zip(names_now, before, now, strict=True)
        return [f"input {name}: changed" for name, *pair in pairs if not _is_same_file(*pair)]
    removed = sorted(set(names_before) - set(names_now))
    added = sorted(set(names_now) - set(names_before))
    differences = [f"input {name}: removed" for name in removed]
    differences += [f"input {name}: added" for name in added]
    return differences or ["the order or number of input files"]


def _is_same_file(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two records are of the same content; hash the present file if need be."""
    if all(key in before and before[key] == now.get(key) for key in _STAT):
        return True
    hash_before = before.get("sha256") or before.get("version")
    hash_now = now.get("sha256") or now.get("version")
    if hash_before is None:
        return hash_now is None and before == now
    return bool(hash_before == (hash_now or manifest.sha256(now["path"])))


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _MAX_CHARACTERS:
        text = text[: _MAX_CHARACTERS - 1] + "…"
    return text


def plain(value: Any) -> Any:
    """Return a value as it is read back from JSON."""
    return json.loads(json.dumps(value))
