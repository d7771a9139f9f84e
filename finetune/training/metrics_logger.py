"""Writes the steps and validations of Hugging Face's Trainer to RUN/log.jsonl."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from galen.errors import DataError
from galen.step_log import StepLog


class RunLog(TrainerCallback):
    """Writes training steps and validations as they come.

    Args:
        path: the log file.
        done: steps that a checkpoint already holds; later lines, left by a run killed after it, are
            removed.
        total: steps of the run.
        consumed: tells how many samples and tokens have been trained on after a number of steps.
    """

    def __init__(
        self, path: Path, done: int, total: int, consumed: Callable[[int], tuple[int, int]]
    ) -> None:
        self._consumed = consumed
        self._log = StepLog(path, done, total)
        last = next(
            (record for record in reversed(self._log.records) if record["kind"] == "train"),
            {"elapsed": 0.0},
        )
        self._before = last["elapsed"]
        self._tokens = consumed(done)[1]
        self._start = time.monotonic()
        self._last = self._start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock when the first batch is due."""
        self._start = time.monotonic()
        self._last = self._start

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """Record one step; the summary that the trainer logs at the end is no step."""
        if "loss" not in logs:
            return
        now = time.monotonic()
        step = state.global_step
        loss = logs["loss"]
        samples, tokens = self._consumed(step)
        rate = (tokens - self._tokens) / (now - self._last)
        self._tokens = tokens
        self._last = now
        record = {
            "step": step,
            "loss": loss,
            "lr": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "consumed_samples": samples,
            "tokens": tokens,
            "tokens_per_second": rate,
            "elapsed": self._before + now - self._start,
        }
        if not math.isfinite(loss) or not math.isfinite(logs["grad_norm"]):
            raise DataError(
                f"the loss is {loss}, the gradient norm {logs['grad_norm']} at step {step}; try a"
                " lower optimizer.lr"
            )
        self._log.train(record)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **_: Any,
    ) -> None:
        """Record one validation; its time is not counted as the next step's."""
        self._last = time.monotonic()
        if any(
            record["kind"] == "validation" and record["step"] == state.global_step
            for record in self._log.records
        ):
            return  # recorded by a run that was killed before its next checkpoint
        self._log.validation(
            state.global_step,
            metrics["eval_loss"],
            metrics["eval_tokens"],
            accuracy=metrics.get("eval_accuracy"),
        )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The time a checkpoint takes is not counted as the next step's."""
        self._last = time.monotonic()
