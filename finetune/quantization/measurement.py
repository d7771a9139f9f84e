"""Cost and accuracy of a model, measured on this machine: bytes, memory, speed, accuracy."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evaluation.backends.model_loading import load_model
from evaluation.backends.transformers_backend import TransformersBackend, default_dtype
from evaluation.metrics import intervals
from evaluation.question_sets.question import Question
from finetune.training.validation_accuracy import correct
from galen.errors import DataError, one_line
from galen.progress import Progress

PROMPT_TOKENS, NEW_TOKENS = 256, 32
REPEATS = 5
"""Timed runs after one warm-up run; the speed is their median."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model's figures."""

    bytes_on_disk: int
    bytes_in_memory: int
    """On a GPU the peak while it worked, on a CPU its weights after the work."""
    prompt_tokens_per_second: float
    """Tokens of a prompt of 256 read in a second."""
    new_tokens_per_second: float
    """Tokens written in a second after it, one sequence."""
    correct: list[int]
    """1 for each question answered rightly, else 0; empty without questions."""


def measure(folder: Path, questions: Sequence[Question], protocol: str) -> Measurement:
    """Load a folder with `transformers` and measure it.

    Raises:
        DataError: it does not load, or does not run on this machine.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    placed = {"device_map": {"": device}} if device.type == "cuda" else {}
    model, tokenizer = load_model(
        folder, dtype=getattr(torch, default_dtype(device.type)), **placed
    )
    model.eval()
    try:
        with Progress(f"{folder.name}: speed", 2 * (REPEATS + 1), "runs") as progress:
            prompt_rate, new_rate = _speed(model, device, progress)
        with Progress(f"{folder.name}: accuracy", len(questions), "questions") as progress:
            answers = correct(
                TransformersBackend.from_model(model, tokenizer, device),
                [(item, protocol) for item in questions],
                scored=progress.update,
            )
    except (ValueError, RuntimeError, ImportError, AssertionError) as error:
        raise DataError(
            f"{folder} does not run on this machine ({device}): {one_line(error)}"
        ) from error
    memory = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else model.get_memory_footprint()
    )
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Measurement(size, memory, prompt_rate, new_rate, answers)


@torch.inference_mode()
def _speed(model: Any, device: torch.device, progress: Progress) -> tuple[float, float]:
    """Return tokens per second in reading and in writing.

    The median of several runs after a warm-up, which prepares kernels and memory.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    tokens = torch.randint(
        0, model.config.vocab_size, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0)
    ).to(device)

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
            progress.update()
        return statistics.median(times[1:])

    read = partial(model, tokens)
    write = partial(
        model.generate,
        tokens,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    reading, both = seconds(read), seconds(write)
    return PROMPT_TOKENS / reading, NEW_TOKENS / max(both - reading, 1e-9)


def table(measured: dict[str, Measurement]) -> str:
    """Return a Markdown table, each model compared with the first.

    Differences of accuracy are in points, with paired 95 % intervals.
    """
    names = list(measured)
    first = measured[names[0]]
    lines = [
        (
            "| | disk MB | memory MB | prompt tokens/s | new tokens/s | accuracy | against the"
            " first, points |"
        ),
        "|---" * 7 + "|",
    ]
    for name, model in measured.items():
        accuracy = difference = ""
        if model.correct:
            estimate = intervals.accuracy(model.correct)
            accuracy = f"{estimate.value:.1%} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
        if model.correct and model is not first:
            change = intervals.accuracy_difference(first.correct, model.correct)
            difference = (
                f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
            )
        sizes = f"{model.bytes_on_disk / 1e6:,.1f} | {model.bytes_in_memory / 1e6:,.1f}"
        rates = f"{model.prompt_tokens_per_second:,.0f} | {model.new_tokens_per_second:,.1f}"
        lines.append(f"| {name} | {sizes} | {rates} | {accuracy} | {difference} |")
    return "\n".join(lines) + "\n"
