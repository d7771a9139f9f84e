"""The log of a training run, the same for pretraining and fine-tuning: RUN/log.jsonl for machines, a line for people."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from galen.atomic import write_text


class StepLog:
    """Appends a record per step and per validation, and says each on standard error.

    Args:
        path: the log file.
        done: steps that a checkpoint holds; later records, left by a run that was killed after it, are removed. With 0 the
            run begins anew, and so does the log.
        total: steps of the whole run.
    """

    def __init__(self, path: Path, done: int, total: int) -> None:
        self.path, self.total = path, total
        self.records = [record for record in _read(path) if record["step"] <= done] if done else []
        """What the log held already, up to `done`."""
        write_text(path, "".join(json.dumps(record) + "\n" for record in self.records))
        self._done, self._start = done, time.monotonic()

    def train(self, record: dict[str, Any]) -> None:
        """Record a step: step, loss, lr, grad_norm, consumed_samples, tokens, tokens_per_second, elapsed; mfu where it is known."""
        self._write({"kind": "train", **record})
        step = record["step"]
        left = (time.monotonic() - self._start) / (step - self._done) * (self.total - step)
        parts = [f"loss {record['loss']:.4f}", f"lr {record['lr']:.2e}", f"grad norm {record['grad_norm']:.3f}"]
        parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
        if record.get("mfu") is not None:
            parts.append(f"MFU {record['mfu']:.1%}")
        self._say(step, *parts, f"{tqdm.format_interval(left)} left")

    def validation(self, step: int, loss: float, tokens: int, accuracy: float | None = None) -> None:
        """Record a validation after `step` steps: mean loss per token in nats over `tokens` tokens, accuracy where it was measured."""
        measured = {} if accuracy is None else {"accuracy": accuracy}
        self._write({"kind": "validation", "step": step, "loss": loss, "tokens": tokens, **measured})
        self._say(step, f"validation loss {loss:.4f} over {tokens:,} tokens", *(f"accuracy {value:.1%}" for value in measured.values()))

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _say(self, step: int, *parts: str) -> None:
        print(" | ".join([f"step {step}/{self.total}", *parts]), file=sys.stderr, flush=True)


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; a half line at the end is what a kill left."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
