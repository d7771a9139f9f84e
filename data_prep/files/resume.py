"""Whether a stage's output exists already, from the same inputs and configuration.

It may also have been left by a killed run of the same stage.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from galen import manifest
from galen.atomic import write_text
from galen.errors import OutputConflictError


def finished(
    manifest_path: str | Path,
    stage: str,
    inputs: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Return the manifest of a finished run of this stage with these inputs and this configuration.

    None if there is none.
    """
    manifest_path = Path(manifest_path)
    if not manifest_path.exists():
        return None
    found = manifest.read(manifest_path, stage=stage)
    advice = "remove that output or choose another one"
    then = found["config"]
    changes = list(_changes(then, config, ""))
    if changes:
        what = ", ".join(
            f"{key} = {before!r:.200} (now {now!r:.200})" for key, before, now in changes
        )
        raise OutputConflictError(f"{manifest_path} is of a run with {what}; {advice}")
    if _identity(inputs) != _identity(found["inputs"]):
        changed = [
            name for name, _ in set(_identity(inputs)) ^ set(_identity(found["inputs"]))
        ] or ["their order"]
        raise OutputConflictError(
            f"{manifest_path} is of a run with other input files"
            f" ({', '.join(sorted(set(changed))[:3])}); {advice}"
        )
    return found


def _changes(
    then: Mapping[str, Any], now: Mapping[str, Any], place: str
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences of two configurations, before and now.

    For lists of sources or steps, the differing key within the item.
    """
    for key in sorted(then.keys() | now.keys()):
        before, value = then.get(key), now.get(key)
        if before == value:
            continue
        items = _item_pairs(before, value)
        if not items:
            yield f"{place}{key}", before, value
        for number, (one, other) in enumerate(items):
            yield from _changes(one, other, f"{place}{key}.{number}.")


def _item_pairs(before: Any, now: Any) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the items of two lists of mappings of the same length, side by side.

    None if they are anything else.
    """
    if not (isinstance(before, list) and isinstance(now, list) and len(before) == len(now)):
        return []
    pairs = list(zip(before, now, strict=True))
    return pairs if all(isinstance(item, Mapping) for pair in pairs for item in pair) else []


@contextlib.contextmanager
def claimed(output: str | Path, files: Sequence[Path], plan: object) -> Iterator[None]:
    """Note which work writes `files` while the block runs.

    After a kill the same work may replace them, and nothing else does.
    """
    note, wanted = _claim_of(output), json.dumps(plan, indent=1)
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        for path in filter(Path.exists, files):
            raise OutputConflictError(
                f"{path} exists already and is not of this command; remove it or choose another"
                " output"
            )
        write_text(note, wanted)
    try:
        yield
    except BaseException:
        if not any(map(Path.exists, files)):
            note.unlink(missing_ok=True)
        raise
    note.unlink()


def forget(output: str | Path) -> None:
    """Remove the note of a run that was killed when all was done."""
    _claim_of(output).unlink(missing_ok=True)


def _claim_of(output: str | Path) -> Path:
    path = Path(output)
    return path.with_name(f".{path.name}.claim.partial")


def _identity(inputs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(Path(record["path"]).name, record["sha256"] or record["version"]) for record in inputs]
