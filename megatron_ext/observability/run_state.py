"""The state of a pretraining run, read from its folder during or after the run. No torch here."""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from galen import json_file, lock, manifest
from galen.errors import DataError
from megatron_ext.checkpoint import folder as checkpoint_folder
from megatron_ext.config.recipe import of_run
from megatron_ext.resilience import watchdog
from megatron_ext.resilience.signals import STOPPED

LOG = "log.jsonl"
RECENT = 20  # steps that rates and the smoothed loss are taken of
SILENT_SECONDS = 180
"""Every process renews its note at least every 30 seconds, whatever it is doing."""
STARTING_SECONDS = 3600
"""Until the model is built and read there are no notes."""
STALLED_SECONDS, STALLED_STEPS = 120, 10
"""A phase of a step that lasts longer than both (seconds, step times) is unusual."""
_TRAIN = ("step", "loss", "grad_norm", "lr", "tokens", "tokens_per_second", "elapsed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at one moment."""

    folder: Path
    total: int
    """Steps of the whole run."""
    status: str
    """In words: finished, stopped early and why, starting, running, stalled, ended or silent.

    "Ended" is without finishing.
    """
    over: bool
    """Whether nothing more is to be expected without another start."""
    train: list[dict[str, Any]]
    """The log's records of steps, the last at the end."""
    validation: list[dict[str, Any]]
    events: list[dict[str, Any]]
    """What was out of the ordinary: skipped steps, going back after a spike, slow ranks."""
    checkpoint: int | None
    """Step of the last complete checkpoint."""
    checkpoint_age: float | None
    """Seconds since it was written."""

    @property
    def step(self) -> int:
        """The last step that the log holds."""
        return self.train[-1]["step"] if self.train else 0

    @property
    def loss(self) -> float | None:
        """Mean loss of the last steps."""
        return (
            statistics.fmean(record["loss"] for record in self.train[-RECENT:])
            if self.train
            else None
        )

    @property
    def tokens_per_second(self) -> float | None:
        """Median rate of the last steps, over all processes."""
        return (
            statistics.median(record["tokens_per_second"] for record in self.train[-RECENT:])
            if self.train
            else None
        )

    @property
    def mfu(self) -> float | None:
        """Median model FLOPs utilisation of the last steps, where the devices' peak is known."""
        known = [record["mfu"] for record in self.train[-RECENT:] if record.get("mfu") is not None]
        return statistics.median(known) if known else None

    @property
    def skipped(self) -> int:
        """Steps that were left out."""
        return self.train[-1].get("skipped_steps", 0) if self.train else 0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace of the last steps, without validations and checkpoints."""
        if len(self.train) < 2:
            return None
        return _pace(self.train) * (self.total - self.step)


def read(folder: str | Path) -> RunState:
    """Read how the run in `folder` stands.

    Raises:
        DataError: there is no run in it, or its log is damaged.
        OutputConflictError: it holds something else.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise DataError(f"{folder} is not the folder of a pretraining run: recipe.yaml is missing")
    total = of_run(folder / "recipe.yaml").training.train_iters
    records = _records(folder / LOG)
    train = [record for record in records if record["kind"] == "train"]
    status, over = _status(folder, train)
    checkpoint = checkpoint_folder.latest_iteration(folder / "checkpoints")
    written = (
        None
        if checkpoint is None
        else checkpoint_folder.iteration_folder(folder / "checkpoints", checkpoint).stat().st_mtime
    )
    return RunState(
        folder=folder,
        total=total,
        status=status,
        over=over,
        train=train,
        validation=[record for record in records if record["kind"] == "validation"],
        events=[record for record in records if record["kind"] not in ("train", "validation")],
        checkpoint=checkpoint,
        checkpoint_age=None if written is None else time.time() - written,
    )


def figures(state: RunState) -> dict[str, str]:
    """Return what there is to say about a run, by name."""
    shown = {"status": state.status}
    if state.train:
        last = state.train[-1]
        shown["loss"] = f"{state.loss:.4f} (last {last['loss']:.4f})"
        shown["grad norm"] = f"{last['grad_norm']:.3f}"
        shown["lr"] = f"{last['lr']:.2e}"
        shown["tokens"] = f"{last['tokens']:,}"
        shown["tokens/s"] = f"{state.tokens_per_second:,.0f}"
    if state.mfu is not None:
        shown["MFU"] = f"{state.mfu:.1%}"
    if state.validation:
        shown["validation loss"] = (
            f"{state.validation[-1]['loss']:.4f} (step {state.validation[-1]['step']})"
        )
    if state.seconds_left is not None and not state.over:
        shown["time left"] = tqdm.format_interval(state.seconds_left)
    shown["skipped steps"] = str(state.skipped)
    if state.checkpoint is None:
        shown["last checkpoint"] = "none"
    else:
        shown["last checkpoint"] = (
            f"step {state.checkpoint}, {tqdm.format_interval(state.checkpoint_age or 0)} ago"
        )
    if state.events:
        event = state.events[-1]
        shown["last event"] = f"{event['kind'].replace('_', ' ')} at step {event['step']}"
    return shown


def _records(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes() if path.exists() else b""
    records = []
    # a half line is being written, or a kill left it
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise DataError(f"{path}, line {number}: not a record of a run's log") from None
    return records


def _record(value: Any) -> dict[str, Any]:
    """Return a record of the log.

    Raises:
        ValueError, TypeError: it lacks what every record of its kind has.
    """
    numbers = {"train": _TRAIN, "validation": ("step", "loss")}.get(value["kind"], ("step",))
    if not all(isinstance(value.get(name), int | float) for name in numbers):
        raise ValueError("a number is missing")
    return value


def _status(folder: Path, train: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return what the run does, in words, and whether that is the end of it."""
    if (folder / manifest.NAME).is_file():
        return "finished", True
    if (folder / STOPPED).is_file():
        return f"stopped early ({json_file.read_object(folder / STOPPED).get('reason')})", True
    notes = watchdog.notes(folder)
    holder = lock.holder(folder)  # of a run that has no notes yet
    known = notes or ([] if holder is None else [holder])
    gone = [one for one in known if watchdog.is_gone(one)]
    if gone and len(gone) == len(known):
        return (
            (
                "ended without finishing: none of its processes is left; its output says why, the"
                " same command goes on"
            ),
            True,
        )
    signs = [
        path
        for path in (folder / LOG, *(folder / watchdog.FOLDER).glob("rank_*.json"))
        if path.exists()
    ]
    if holder is not None or not signs:
        signs.append(folder / "recipe.yaml")  # written anew at each start
    age = time.time() - max(path.stat().st_mtime for path in signs)
    if age > (SILENT_SECONDS if notes else STARTING_SECONDS):
        return f"no sign of life for {age / 60:,.0f} minutes", True
    if gone:
        ranks = ", ".join(str(note["rank"]) for note in gone)
        return f"stalled: of its processes these are gone: {ranks}; the others wait for them", False
    if not notes and not train:
        return "starting", False
    waiting = min((note["seen"] - note["since"] for note in notes), default=0.0)
    if waiting > max(STALLED_SECONDS, STALLED_STEPS * _pace(train)):
        return (
            (
                f"stalled: all processes have been in {notes[0]['phase']!r} for {waiting / 60:,.0f}"
                " minutes"
            ),
            False,
        )
    return "under way", False


def _pace(train: list[dict[str, Any]]) -> float:
    """Return the seconds of a step, from the last ones; 0 where there are too few."""
    last = train[-RECENT:]
    if len(last) < 2 or last[-1]["step"] == last[0]["step"]:
        return 0.0
    return max(
        0.0, (last[-1]["elapsed"] - last[0]["elapsed"]) / (last[-1]["step"] - last[0]["step"])
    )
