"""Outputs and the runs that they belong to: finished, to be resumed, or of another run.

All commands use one mechanism, in small pieces:

- `Identity`: the configuration and the input files that decide an output. The same identity means
  the same output.
- `RunFolder`: an output folder that is written as `.NAME.partial` and appears when it is complete.
- `RunFiles`: an output of several files, whose identity and state are in `.NAME.state.partial`.
- `bind`: an output folder that is written in place, such as a training run's.

An output is finished when its `manifest.json` exists. An unfinished run is resumed by the same
command; what a run of another identity left unfinished is discarded with a warning, and what it
finished is refused with the keys or input files that differ. What another version of Galen left
unfinished is neither resumed, since its bytes may differ, nor discarded, since it may be days of
work: it is refused.
"""

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galen import __version__, atomic, json_file, lock, manifest
from galen.errors import DataError, OutputConflictError

logger = logging.getLogger(__name__)

IDENTITY = ".identity.json"
"""In the working folder of an unfinished output: its identity."""
CONFIGURATION = "configuration.json"
"""In an output folder that is written in place: the configuration that it is bound to."""
ADVICE = "remove it or choose another output"

_MAX_DIFFERENCES = 3
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
            for key, before, now in config_differences(earlier.config, _plain(self.config))
            if not self._may_change(key)
        ]
        if self.inputs is not None:
            changes += _input_differences(earlier.inputs or (), self.inputs)
        return changes

    def record(self) -> dict[str, Any]:
        """Return what an unfinished run is resumed by, of JSON types: it must be equal."""
        config = self._decisive(self.config)
        record = {"galen": __version__, "inputs": list(self.inputs or ()), "config": config}
        return dict(_plain(record))

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


def conflict(
    output: str | Path, differences: Sequence[str], advice: str = ADVICE
) -> OutputConflictError:
    """Return the refusal of an output that belongs to a run of another identity."""
    shown = list(differences[:_MAX_DIFFERENCES])
    if len(differences) > _MAX_DIFFERENCES:
        shown.append(f"and {len(differences) - _MAX_DIFFERENCES} more")
    return OutputConflictError(f"{output} belongs to another run ({'; '.join(shown)}); {advice}")


def unknown_output(output: str | Path) -> OutputConflictError:
    """Return the refusal of an output that no run of this command made."""
    return OutputConflictError(
        f"{output} exists already and was not made by this command; {ADVICE}"
    )


def finished(
    output: str | Path, manifest_path: Path, stage: str, identity: Identity
) -> dict[str, Any] | None:
    """Return the manifest of an output that is finished, None if there is none.

    Raises:
        OutputConflictError: the manifest is damaged, or of another stage or identity.
    """
    if not manifest_path.exists():
        return None
    try:
        existing = manifest.read(manifest_path, stage)
    except DataError as error:
        raise OutputConflictError(f"{error}; remove {output} or choose another output") from None
    earlier = Identity(existing["config"], existing["inputs"])
    if differences := identity.differences(earlier):
        raise conflict(output, differences)
    return existing


def resume(folder: Path, identity: Identity) -> bool:
    """Keep a working folder if its unfinished run has this identity, else empty it.

    Returns:
        True when the folder holds an unfinished run to resume.

    Raises:
        OutputConflictError: the unfinished run is of another version of Galen.
    """
    path = folder / IDENTITY
    stored = None if folder.is_symlink() else _stored(path)
    if stored == identity.record():
        return True
    if stored is not None:
        _check_version(stored, [folder])
        _warn_discarded(folder, stored, identity)
    atomic.remove(folder)
    folder.mkdir(parents=True)
    atomic.write_text(path, json.dumps(identity.record(), indent=1))
    return False


class RunFolder:
    """An output folder that is written under a hidden name and appears when it is complete.

    Args:
        output: the folder; a link is followed.
        stage: which writes it, as in its manifest.
    """

    def __init__(self, output: str | Path, stage: str) -> None:
        self.output = Path(output)
        self.stage = stage
        self.final = lock.resolved_path(output)
        self.partial = atomic.partial_path(self.final)
        """Working folder, beside the place that the output stands for."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the output's lock while the block runs; see `galen.lock.hold`."""
        return lock.hold(self.output)

    def finished(self, identity: Identity) -> dict[str, Any] | None:
        """Return the manifest if the output is finished, None if it does not exist.

        Raises:
            OutputConflictError: the output was made by something else.
        """
        path = self.output / manifest.NAME
        existing = finished(self.output, path, self.stage, identity)
        if existing is None and self.output.exists():
            raise unknown_output(self.output)
        return existing

    def resume(self, identity: Identity) -> bool:
        """Prepare the working folder; return whether it holds an unfinished run to resume.

        Raises:
            OutputConflictError: the unfinished run is of another version of Galen.
        """
        return resume(self.partial, identity)

    def publish(self, folder: Path | None = None) -> None:
        """Give the working folder, or one within it, the final name; the rest is removed.

        Raises:
            OutputConflictError: something of that name has been made meanwhile.
        """
        source = self.partial if folder is None else folder
        (source / IDENTITY).unlink(missing_ok=True)
        self.final.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(self.final)
        except OSError:
            if not self.final.exists():
                raise
            raise OutputConflictError(
                f"{self.final} was made by something else while this command ran; move it away and"
                f" start the same command again: all finished work is in {self.partial}"
            ) from None
        self.discard()

    def discard(self) -> None:
        """Remove the working folder, as of a run that was killed after it published."""
        atomic.remove(self.partial)


class RunFiles:
    """An output of several files, each written under a hidden name and renamed when complete.

    The hidden file `.NAME.state.partial` holds the identity of the unfinished run and its state, so
    that a run that was killed between two renames is resumed and no other run's files are replaced.

    Args:
        name: of the output, with its path.
        files: the final names.
    """

    def __init__(self, name: str | Path, files: Sequence[Path]) -> None:
        self.name = Path(name)
        self.files = files
        self.state_path = atomic.partial_path(self.name.with_name(f"{self.name.name}.state"))
        self._identity: dict[str, Any] = {}

    def begin(
        self, identity: Identity, initial_state: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the saved state of an unfinished run of this identity, None for a new run.

        A new run's `initial_state` is saved. An unfinished run without a state has nothing to
        resume: its files are replaced, also if it is of another version of Galen.

        Raises:
            OutputConflictError: one of the files exists and is not of this run, or the unfinished
                run has a state of another version of Galen.
        """
        self._identity = identity.record()
        stored = _stored(self.state_path)
        if stored is not None and not isinstance(stored.get("state"), dict):
            stored = {}  # damaged
        earlier = None if stored is None else stored.get("identity")
        if stored is not None and earlier == self._identity:
            return dict(stored["state"])
        existing = [path for path in self.files if path.exists()]
        if stored is not None and stored.get("state"):
            _check_version(earlier, [self.state_path, *existing])
        elif _differs_in_version_only(earlier, self._identity):
            self.save({})
            return None
        if existing:
            if earlier is None:
                raise unknown_output(existing[0])
            raise conflict(existing[0], _unfinished_differences(earlier, identity))
        if stored is not None:
            _warn_discarded(self.name, earlier, identity)
        self.save(initial_state or {})
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Save how far the run has come; the files must be flushed."""
        content = {"identity": self._identity, "state": state}
        atomic.write_text(self.state_path, json.dumps(content))

    def end(self) -> None:
        """Remove the state of a finished run."""
        self.state_path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def working(self, identity: Identity) -> Iterator[None]:
        """Begin a run without a state of its own, and end it with the block."""
        self.begin(identity)
        try:
            yield
        except BaseException:
            if not any(path.exists() for path in self.files):
                self.end()
            raise
        self.end()


def bind(folder: str | Path, identity: Identity) -> bool:
    """Bind an output folder that is written in place to a configuration, or check that it is.

    A folder without work (all its files but the configuration are empty) is bound again, so that
    after a mistake that shows before the first result the corrected command simply runs.

    Returns:
        True when an earlier run with the same configuration has begun here.

    Raises:
        OutputConflictError: the folder belongs to another run, or holds something else.
        DataError: its configuration is damaged.
    """
    folder = Path(folder)
    path = folder / CONFIGURATION
    config = _plain(identity.config)
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise unknown_output(folder)
        atomic.write_text(path, text)
        return False
    try:
        existing = json_file.read_object(path)
    except DataError as error:
        raise DataError(f"{error}; remove the folder and start again") from None
    differences = identity.differences(Identity(existing))
    if differences and _has_work(folder):
        raise conflict(folder, differences)
    if existing != config:
        atomic.write_text(path, text)
    return not differences


def _has_work(folder: Path) -> bool:
    return any(
        path.is_file() and path.stat().st_size > 0
        for path in folder.rglob("*")
        if path != folder / CONFIGURATION
    )


def _check_version(stored: Any, paths: Sequence[Path]) -> None:
    """Check that the identity of an unfinished run, if it is readable, is of this version.

    Args:
        stored: the identity.
        paths: what the user removes to start again.

    Raises:
        OutputConflictError: it is of another version.
    """
    version = stored.get("galen") if isinstance(stored, Mapping) else None
    if isinstance(version, str) and version != __version__:
        raise OutputConflictError(
            f"{paths[0]} is an unfinished run of galen {version}, this is galen {__version__}: one"
            f" output never mixes two versions. Resume with galen {version}, or remove"
            f" {' and '.join(map(str, paths))} to start from the beginning"
        )


def _warn_discarded(output: Path, stored: Any, identity: Identity) -> None:
    """Warn that the files of another unfinished run are discarded, and how that run differs."""
    differences = _unfinished_differences(stored, identity)
    reason = "; ".join(differences[:_MAX_DIFFERENCES])
    logger.warning(f"discarding an unfinished run of {output}: it differs ({reason})")


def _unfinished_differences(stored: Any, identity: Identity) -> list[str]:
    """Return how the identity of an unfinished run, as it was stored, differs; never empty."""
    try:
        earlier = Identity(stored["config"], stored["inputs"])
        now = Identity(identity.record()["config"], identity.inputs)
        differences = now.differences(earlier)
    except (LookupError, TypeError, AttributeError, OSError):
        return ["its state is damaged"]
    return differences or ["paths or options of input files"]


def _differs_in_version_only(stored: Any, record: Mapping[str, Any]) -> bool:
    """Return whether the stored identity of an unfinished run is of another version of Galen."""
    return isinstance(stored, Mapping) and {**stored, "galen": __version__} == record


def _stored(path: Path) -> dict[str, Any] | None:
    """Return what a state file holds, None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return json_file.read_object(path)
    except DataError:
        return {}


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


def _plain(value: Any) -> Any:
    """Return a value as it is read back from JSON."""
    return json.loads(json.dumps(value))
