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
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.recipe import from_run
from megatron_ext.observability import accounting, expert_load, goodput
from megatron_ext.observability.expert_load import ExpertLoad
from megatron_ext.observability.goodput import Goodput
from megatron_ext.resilience import watchdog
from megatron_ext.resilience.signals import STOPPED

LOG = "log.jsonl"
RECENT = 20
"""Steps in the window of rates and of the smoothed loss."""
HEARTBEAT_TIMEOUT_SECONDS = 180
"""Every process renews its heartbeat at least every 30 seconds, whatever it is doing."""
STARTUP_TIMEOUT_SECONDS = 3600
"""There are no heartbeats until the model is built and loaded."""
STALLED_SECONDS = 120
STALLED_STEPS = 10
"""A phase that lasts longer than both (seconds, step times) is a stall."""
_SAVES = ("checkpoint", "checkpoint_published")
_ROUTINE = ("train", "validation", *_SAVES)
"""Kinds of records that are no events."""
_EXPERTS = ("expert_load_max", "expert_load_min", "unused_experts")
_OPTIONAL = ("mfu", "load_balancing_loss", "z_loss")
_TRAIN = ("step", "loss", "grad_norm", "lr", "tokens", "tokens_per_second", "elapsed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """Snapshot of a run."""

    folder: Path
    total: int
    """Steps of the run, from the first to the last."""
    status: str
    """finished, stopped early, failed, starting, running or stalled; the last with the cause."""
    ended: bool
    """Whether the run makes no further progress unless it is started again."""
    train: list[dict[str, Any]]
    """The log's records of steps, the last at the end."""
    validation: list[dict[str, Any]]
    events: list[dict[str, Any]]
    """Skipped steps, rollbacks after a loss spike, slow ranks."""
    checkpoint: int | None
    """Step of the last complete checkpoint."""
    checkpoint_age: float | None
    """Seconds since it was written."""
    goodput: Goodput | None
    """Parts of the wall time; None for a run of a version that did not record them."""
    expert_load: ExpertLoad | None
    """Load of the experts at the last logged step; None for a dense model."""

    @property
    def step(self) -> int:
        """The last step that the log holds."""
        return self.train[-1]["step"] if self.train else 0

    @property
    def smoothed_loss(self) -> float | None:
        """Mean loss of the last steps; `train[-1]["loss"]` is that of the last one."""
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
        """Median model FLOPs utilization of the last steps, where the devices' peak is known."""
        known = [record["mfu"] for record in self.train[-RECENT:] if record.get("mfu") is not None]
        return statistics.median(known) if known else None

    @property
    def skipped(self) -> int:
        """Steps without an update."""
        return self.train[-1].get("skipped_steps", 0) if self.train else 0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace of the last steps, without validations and checkpoints."""
        if len(self.train) < 2:
            return None
        return _pace(self.train) * (self.total - self.step)


def read(folder: str | Path) -> RunState:
    """Read the state of the run in `folder`.

    Raises:
        DataError: it is not a run folder, or its log is damaged.
        OutputConflictError: it belongs to another command.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise DataError(f"{folder} is not the folder of a pretraining run: recipe.yaml is missing")
    training = from_run(folder / "recipe.yaml").training
    records = _records(folder / LOG)
    train = [record for record in records if record["kind"] == "train"]
    status = _status(folder, train)
    checkpoint = checkpoint_folder.latest_iteration(folder / "checkpoints")
    checkpoint_age = None
    if checkpoint is not None:
        path = checkpoint_folder.iteration_folder(folder / "checkpoints", checkpoint)
        checkpoint_age = time.time() - path.stat().st_mtime
    return RunState(
        folder=folder,
        total=training.train_iters,
        status=status.text,
        ended=status.ended,
        train=train,
        validation=[record for record in records if record["kind"] == "validation"],
        events=[record for record in records if record["kind"] not in _ROUTINE],
        checkpoint=checkpoint,
        checkpoint_age=checkpoint_age,
        expert_load=expert_load.read(folder),
        goodput=accounting.read(
            folder,
            training.save_interval,
            checkpoint,
            is_running=not status.ended,
            saves=[record for record in records if record["kind"] in _SAVES],
        ),
    )


def figures(state: RunState) -> dict[str, str]:
    """Return the displayed values by name."""
    shown = {"status": state.status}
    if state.train:
        last = state.train[-1]
        shown["loss"] = f"{state.smoothed_loss:.4f} (last {last['loss']:.4f})"
        shown["grad norm"] = f"{last['grad_norm']:.3f}"
        shown["lr"] = f"{last['lr']:.2e}"
        shown["tokens"] = f"{last['tokens']:,}"
        shown["tokens/s"] = f"{state.tokens_per_second:,.0f}"
        shown |= _expert_figures(last)
    if state.mfu is not None:
        shown["MFU"] = f"{state.mfu:.1%}"
    if state.validation:
        shown["validation loss"] = (
            f"{state.validation[-1]['loss']:.4f} (step {state.validation[-1]['step']})"
        )
    if state.seconds_left is not None and not state.ended:
        shown["time left"] = tqdm.format_interval(state.seconds_left)
    shown["skipped steps"] = str(state.skipped)
    if state.checkpoint is None:
        shown["last checkpoint"] = "none"
    else:
        shown["last checkpoint"] = (
            f"step {state.checkpoint}, {tqdm.format_interval(state.checkpoint_age or 0)} ago"
        )
    shown["goodput"] = goodput.summary(state.goodput)
    if state.events:
        event = state.events[-1]
        shown["last event"] = f"{event['kind'].replace('_', ' ')} at step {event['step']}"
    return shown


def _expert_figures(last: dict[str, Any]) -> dict[str, str]:
    """Return the displayed values of a mixture of experts from the last log line."""
    shown = {}
    if "expert_load_max" in last:
        shown["expert load"] = (
            f"{last['expert_load_min']:.2f} to {last['expert_load_max']:.2f} of the mean,"
            f" {last['unused_experts']:.1%} unused"
        )
    if "load_balancing_loss" in last:
        shown["load balancing loss"] = f"{last['load_balancing_loss']:.4f}"
    if "z_loss" in last:
        shown["z-loss"] = f"{last['z_loss']:.4f}"
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
        ValueError, TypeError: it lacks a field of its kind of record.
    """
    numbers = {"train": _TRAIN, "validation": ("step", "loss")}.get(value["kind"], ("step",))
    if not isinstance(value["kind"], str):
        raise TypeError("kind is not a text")
    if not all(_is_number(value.get(name)) for name in numbers):
        raise ValueError("a number is missing")
    for name in _OPTIONAL:
        if value.get(name) is not None and not _is_number(value[name]):
            raise ValueError(f"{name} is no number")
    if "expert_load_max" in value and not all(_is_number(value.get(name)) for name in _EXPERTS):
        raise ValueError("a number of the experts is missing")
    return value


def _is_number(value: Any) -> bool:
    """Return whether a value of JSON is a number of which others can be computed."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


@dataclasses.dataclass(frozen=True)
class _Status:
    """Status of a run, and whether it makes no further progress unless it is started again."""

    text: str
    ended: bool


def _status(folder: Path, train: list[dict[str, Any]]) -> _Status:
    """Return the status of a run."""
    if (folder / manifest.NAME).is_file():
        return _Status("finished", ended=True)
    if (folder / STOPPED).is_file():
        reason = json_file.read_object(folder / STOPPED).get("reason")
        return _Status(f"stopped early ({reason})", ended=True)
    heartbeats = watchdog.heartbeats(folder)
    holder = lock.holder(folder)
    processes = heartbeats
    if not heartbeats and holder is not None:  # started a moment ago
        processes = [holder]
    dead = [process for process in processes if watchdog.is_dead(process)]
    if dead and len(dead) == len(processes):
        return _Status(
            "failed: none of its processes is alive; see its output, and run the same command"
            " again to resume",
            ended=True,
        )
    age = _seconds_since_update(folder, with_recipe=holder is not None)
    if age > (HEARTBEAT_TIMEOUT_SECONDS if heartbeats else STARTUP_TIMEOUT_SECONDS):
        return _Status(f"stalled: no heartbeat for {age / 60:,.0f} minutes", ended=True)
    if dead:
        ranks = ", ".join(str(process["rank"]) for process in dead)
        return _Status(f"stalled: the other ranks wait for dead processes (rank {ranks})", False)
    if not heartbeats and not train:
        return _Status("starting", ended=False)
    return _Status(_phase_status(heartbeats, train), ended=False)


def _phase_status(heartbeats: list[dict[str, Any]], train: list[dict[str, Any]]) -> str:
    """Return whether the processes of a run are stalled in one phase."""
    seconds = min((one["seen"] - one["since"] for one in heartbeats), default=0.0)
    if seconds <= max(STALLED_SECONDS, STALLED_STEPS * _pace(train)):
        return "running"
    phase = heartbeats[0]["phase"]
    return f"stalled: all processes have been in {phase!r} for {seconds / 60:,.0f} minutes"


def _seconds_since_update(folder: Path, with_recipe: bool) -> float:
    """Return the age of a run's newest log line or heartbeat.

    Args:
        folder: run folder.
        with_recipe: count the recipe, too, which each start writes; always where there is neither
            log nor heartbeat.
    """
    paths = [folder / LOG, *(folder / watchdog.FOLDER).glob("rank_*.json")]
    paths = [path for path in paths if path.exists()]
    if with_recipe or not paths:
        paths.append(folder / "recipe.yaml")
    return time.time() - max(path.stat().st_mtime for path in paths)


def _pace(train: list[dict[str, Any]]) -> float:
    """Return the seconds of a step, from the last ones; 0 where there are too few."""
    last = train[-RECENT:]
    if len(last) < 2 or last[-1]["step"] == last[0]["step"]:
        return 0.0
    return max(
        0.0, (last[-1]["elapsed"] - last[0]["elapsed"]) / (last[-1]["step"] - last[0]["step"])
    )
