"""The log of a training run, the same for pretraining and fine-tuning.

It writes RUN/log.jsonl for machines and a line for people.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from galen.atomic import write_text
from galen.errors import DataError, one_line


class StepLog:
    """Appends a record per step and per validation, and says each on standard error.

    Args:
        path: the log file.
        done: steps that a checkpoint holds; later records, left by a run that was killed after it,
            are removed. With 0 the run begins anew, and so does the log.
        total: steps of the whole run.
    """

    def __init__(self, path: Path, done: int, total: int) -> None:
        self.path, self.total = path, total
        self._begin(done)

    def train(self, record: dict[str, Any]) -> None:
        """Record a step.

        Its figures are step, loss, lr, grad_norm, consumed_samples, tokens, tokens_per_second,
        elapsed, and mfu where it is known.
        """
        self._write({"kind": "train", **record})
        step = record["step"]
        left = (time.monotonic() - self._start) / (step - self._done) * (self.total - step)
        parts = [
            f"loss {record['loss']:.4f}",
            f"lr {record['lr']:.2e}",
            f"grad norm {record['grad_norm']:.3f}",
        ]
        parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
        if record.get("mfu") is not None:
            parts.append(f"MFU {record['mfu']:.1%}")
        self._say(step, *parts, f"{tqdm.format_interval(left)} left")

    def validation(
        self,
        step: int,
        loss: float,
        tokens: int,
        sources: dict[str, float] | None = None,
        accuracy: float | None = None,
    ) -> None:
        """Record a validation after `step` steps.

        Its figures are the mean loss per token in nats over `tokens` tokens, and any other
        measures.

        Args:
            step: optimizer steps done.
            loss: mean loss per token in nats.
            tokens: how many tokens it is the mean of.
            sources: the loss of each source.
            accuracy: share of questions answered rightly.
        """
        record: dict[str, Any] = {
            "kind": "validation",
            "step": step,
            "loss": loss,
            "tokens": tokens,
        }
        self._write(
            record
            | ({"sources": sources} if sources else {})
            | ({} if accuracy is None else {"accuracy": accuracy})
        )
        parts = [f"{name} {value:.4f}" for name, value in (sources or {}).items()]
        parts += [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
        self._say(step, f"validation loss {loss:.4f} over {tokens:,} predicted tokens", *parts)

    def event(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """Record something out of the ordinary, and say it."""
        self._write({"kind": kind, "step": step, **record})
        self._say(
            step,
            kind.replace("_", " "),
            *(f"{name} {value}" for name, value in record.items() if value not in (None, [])),
        )

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run goes on from there another way."""
        self._begin(step)

    def _begin(self, done: int) -> None:
        self.records = (
            [record for record in _read(self.path) if record["step"] <= done] if done else []
        )
        """What the log held up to `done`; records written from here on are not among them."""
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))
        self._done, self._start = done, time.monotonic()

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _say(self, step: int, *parts: str) -> None:
        print(" | ".join([f"step {step}/{self.total}", *parts]), file=sys.stderr, flush=True)


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; a half line at the end is what a kill left.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {one_line(error)}; restore it, or choose another output"
        ) from None
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if (
            not isinstance(record, dict)
            or not isinstance(record.get("step"), int)
            or not isinstance(record.get("kind"), str)
        ):
            raise ValueError("no record of a step")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: damaged ({one_line(error)}); remove that line, and the same command goes on"
        ) from None
    return record
