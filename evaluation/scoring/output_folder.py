"""Output folders bound to a configuration, so that restarts resume and nothing else mixes in."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError, UsageError

NAME = "configuration.json"


def claim(folder: str | Path, configuration: Mapping[str, Any], free: Collection[str] = ()) -> bool:
    """Bind a new folder to a configuration (plain JSON types), or check an existing binding.

    A folder without work (all its files but the configuration are empty) is bound anew, so that
    after a mistake that shows before the first result the corrected command simply runs.

    Args:
        folder: the output.
        configuration: what decides it.
        free: dotted keys of it that decide nothing and may change.

    Returns:
        True when an earlier run began here with the same configuration.

    Raises:
        UsageError: the folder is bound to another configuration, or holds something else; names the
            differences.
    """
    folder = Path(folder)
    path = folder / NAME
    wanted = json.loads(json.dumps(configuration))
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} exists and was not made by this command; choose another output"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
        return False
    try:
        there = json_file.read_object(path)
    except DataError as error:
        raise DataError(f"{error}; remove the folder and start again") from None
    different = list(_differences(there, wanted))
    binding = [text for key, text in different if key not in free]
    if binding and _has_work(folder):
        shown = "; ".join(binding[:3]) + (
            f"; and {len(binding) - 3} more" if len(binding) > 3 else ""
        )
        raise UsageError(
            f"{folder} was begun with another configuration ({shown}); choose another output or"
            " remove it"
        )
    if different:
        write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return not binding


def _has_work(folder: Path) -> bool:
    return any(
        path.is_file() and path.stat().st_size > 0
        for path in folder.rglob("*")
        if path != folder / NAME
    )


def _differences(there: Any, wanted: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key that differs, and both values in words."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for name in [*there, *(name for name in wanted if name not in there)]:
            yield from _differences(
                there.get(name), wanted.get(name), f"{key}.{name}" if key else name
            )
    elif there != wanted:
        yield key, f"{key}: {_shown(there)} there, {_shown(wanted)} now"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
