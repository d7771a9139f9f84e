"""Outputs and the runs that they belong to: finished, to be resumed, or of another run.

All commands use one mechanism, in small pieces:

- `Identity` (`galen.run_identity`): the configuration and the input files that decide an output.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from galen import atomic, json_file, lock, manifest, run_identity
from galen.errors import DataError, OutputConflictError
from galen.run_identity import Identity, plain

logger = logging.getLogger(__name__)

IDENTITY = ".identity.json"
"""In the working folder of an unfinished output: its identity."""
CONFIGURATION = "configuration.json"
"""In an output folder that is written in place: the configuration that it is bound to."""
ADVICE = "remove it or choose another output"

_MAX_DIFFERENCES = 3


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
    config = plain(identity.config)
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
    if isinstance(version, str) and version != run_identity.VERSION:
        raise OutputConflictError(
            f"{paths[0]} is an unfinished run of galen {version}, this is galen"
            f" {run_identity.VERSION}: one output never mixes two versions. Resume with galen"
            f" {version}, or remove"
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
    return isinstance(stored, Mapping) and {**stored, "galen": run_identity.VERSION} == record


def _stored(path: Path) -> dict[str, Any] | None:
    """Return what a state file holds, None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return json_file.read_object(path)
    except DataError:
        return {}
