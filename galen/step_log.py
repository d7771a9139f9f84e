"""The log of a training run, the same for pretraining and fine-tuning.

It writes records to RUN/log.jsonl and logs a line for each.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from galen.atomic import write_text
from galen.errors import DataError, one_line

logger = logging.getLogger(__name__)


class StepLog:
    """Appends a record per step, validation and event, and logs each as a line.

    Args:
        path: the log file.
        done: step of the checkpoint that the run resumes from; later records, left by a killed run,
            are removed. With 0 all are.
        total: last step of the run.
    """

    def __init__(self, path: Path, done: int, total: int) -> None:
        self.path = path
        self.total = total
        self._begin(done)

    def train(self, record: dict[str, Any]) -> None:
        """Record a step.

        Its figures are step, loss, lr, grad_norm, consumed_samples, tokens, tokens_per_second,
        elapsed, and where they are known mfu and padding_fraction.
        """
        self._write({"kind": "train", **record})
        step = record["step"]
        left = (time.monotonic() - self._start) / (step - self._done) * (self.total - step)
        values = [
            f"loss {record['loss']:.4f}",
            f"lr {record['lr']:.2e}",
            f"grad norm {record['grad_norm']:.3f}",
            f"{record['tokens_per_second']:,.0f} tokens/s",
        ]
        if record.get("mfu") is not None:
            values.append(f"MFU {record['mfu']:.1%}")
        if record.get("padding_fraction") is not None:
            values.append(f"{record['padding_fraction']:.1%} padding")
        values.append(f"{tqdm.format_interval(left)} left")
        self._log_line(logging.INFO, step, values)

    def validation(
        self,
        step: int,
        loss: float,
        tokens: int,
        sources: dict[str, float] | None = None,
        accuracy: float | None = None,
    ) -> None:
        """Record a validation after `step` steps.

        Args:
            step: optimizer steps done.
            loss: mean loss per token in nats.
            tokens: number of tokens in the mean.
            sources: the loss of each source.
            accuracy: fraction of questions answered correctly.
        """
        record: dict[str, Any] = {
            "kind": "validation",
            "step": step,
            "loss": loss,
            "tokens": tokens,
        }
        values = [f"validation loss {loss:.4f} over {tokens:,} predicted tokens"]
        if sources:
            record["sources"] = sources
            values += [f"{name} {value:.4f}" for name, value in sources.items()]
        if accuracy is not None:
            record["accuracy"] = accuracy
            values.append(f"accuracy {accuracy:.1%}")
        self._write(record)
        self._log_line(logging.INFO, step, values)

    def event(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """Record an unusual event and log it as a warning."""
        self._write({"kind": kind, "step": step, **record})
        values = [kind.replace("_", " ")]
        values += [f"{name} {value}" for name, value in record.items() if value not in (None, [])]
        self._log_line(logging.WARNING, step, values)

    def rewind(self, step: int) -> None:
        """Remove the records after `step`, to which the run was rolled back."""
        self._begin(step)

    def _begin(self, done: int) -> None:
        records = _read(self.path) if done else []
        self.records = [record for record in records if record["step"] <= done]
        """Records up to `done`, without those written from here on."""
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))
        self._done = done
        self._start = time.monotonic()

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _log_line(self, level: int, step: int, values: list[str]) -> None:
        logger.log(level, " | ".join([f"step {step}/{self.total}", *values]))


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, without a half line that a killed run left at its end.

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
        if not isinstance(record, dict):
            raise ValueError("not an object")
        if not isinstance(record.get("step"), int) or not isinstance(record.get("kind"), str):
            raise ValueError("step or kind is missing")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: damaged ({one_line(error)}); remove that line, and run the same command"
            " again to resume"
        ) from None
    return record
