"""Checks that a run on CPUs fits into this machine's memory.

It is checked before the start, since the system kills a run that does not fit.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory_model

GIB = 2**30
LIBRARIES = 0.6 * GIB
"""What a process takes without a model, measured: Python, PyTorch, Megatron Core."""
READER = 0.15 * GIB
"""What a process that reads ahead takes of its own, measured."""
SHORTEST = 256
"""Tokens of a sequence below which none is proposed."""


def available() -> float:
    """Return the bytes that this process and its peers can still allocate.

    They are what is free, or what their control group allows.
    """
    return min(
        [
            float(psutil.virtual_memory().available),
            *_left_in_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")),
        ]
    )


def _left_in_groups(mounted: Path, own: Path) -> Iterator[float]:
    """Yield the headroom of each memory limit of this process's cgroups (v1 and v2)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mounted / "memory" if controllers else mounted
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("memory.max", "memory.current")
        )
        group = root / path.strip("/")
        # in a container the path may be the host's, and only the root be there
        for folder in (group, *group.parents):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _cached(folder)
            if folder == root:
                break


def _number(file: Path) -> float | None:
    """Return the number in a file, None where there is none: `max` means no limit."""
    try:
        return float(int(file.read_text()))
    except (OSError, ValueError):
        return None


def _cached(folder: Path) -> float:
    """Return the bytes of a group that hold files, which the system drops when memory is wanted."""
    try:
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0.0
    return sum(float(counts.get(name, 0)) for name in ("inactive_file", "active_file"))


def process_bytes(
    architecture: Architecture, run: Recipe, processes: int, stage: int
) -> dict[str, float]:
    """Return what a process of a pipeline stage needs at its fullest moment, by what it is.

    That moment is a checkpoint: each process gathers its replicas' part of the optimizer's state
    and copies what it writes, while the memory of a step's activations, mostly in pieces too small
    for the system to be given them back, is still the process's own.
    """
    memory = memory_model.stage_memory(architecture, run, processes, stage, fused=False)
    logits = 0.0
    # megatron_ext.model.cross_entropy makes no second tensor of their size
    if stage == run.parallel.pipeline_model_parallel_size - 1:
        logits = memory_model.logits_bytes(architecture, run)["logits"]
    replicas = memory_model.data_parallel_size(run, processes) * run.parallel.context_parallel_size
    written = (memory.weights + memory_model.OPTIMIZER_STATE * memory.parameters) / replicas
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits": logits,
        "checkpoint": memory_model.OPTIMIZER_STATE * memory.parameters + written,
        "libraries": LIBRARIES + READER * run.data.num_workers,
    }


def machine_bytes(architecture: Architecture, run: Recipe, processes: int, here: int) -> float:
    """Return what the `here` of a run's processes that are on this machine need together.

    Their stages are known only if all processes are here.
    """
    stages = run.parallel.pipeline_model_parallel_size
    each = [
        sum(process_bytes(architecture, run, processes, stage).values()) for stage in range(stages)
    ]
    return sum(each) * processes / stages if here == processes else max(each) * here


def check(architecture: Architecture, run: Recipe) -> None:
    """Refuse a run that this machine has not the memory for.

    Raises:
        UsageError: says what it needs, what there is, and a setting that fits.
    """
    processes, here = (
        int(os.environ.get("WORLD_SIZE", "1")),
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    free, needed = available(), machine_bytes(architecture, run, processes, here)
    if needed <= free or not run.resilience.check_memory:
        return
    last = run.parallel.pipeline_model_parallel_size - 1
    parts = process_bytes(architecture, run, processes, last)
    described = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    raise UsageError(
        f"the run needs about {needed / GIB:.1f} GiB on this machine, where {free / GIB:.1f} GiB"
        f" are free: {here} {'process' if here == 1 else 'processes'}, one of them"
        f" {sum(parts.values()) / GIB:.1f} GiB ({described})."
        f" {_what_fits(architecture, run, processes, here, free)}; resilience.check_memory=false"
        " skips this check"
    )


def _what_fits(
    architecture: Architecture, run: Recipe, processes: int, here: int, free: float
) -> str:
    """Say with which change of the recipe, or of the number of processes, a run fits.

    Shorter sequences come last.
    """
    numbers = (
        [processes >> halved for halved in range(processes.bit_length())]
        if here == processes
        else [processes]
    )
    shorter_ones = (run.data.seq_length >> halved for halved in range(1, 32))
    lengths = [run.data.seq_length, *(length for length in shorter_ones if length >= SHORTEST)]
    for length, number in itertools.product(lengths, numbers):
        shorter = dataclasses.replace(run, data=dataclasses.replace(run.data, seq_length=length))
        for changed, words in _smaller(shorter):
            if (
                _is_possible(architecture, changed, number)
                and machine_bytes(architecture, changed, number, min(here, number)) <= free
            ):
                fewer = [] if number == processes else [f"--nproc-per-node {number}"]
                less = [] if length == run.data.seq_length else [f"data.seq_length={length}"]
                return f"It fits with {' '.join([*fewer, *words, *less])}"
    return "Nothing smaller fits: take a smaller model or a larger machine"


def _smaller(run: Recipe) -> Iterator[tuple[Recipe, list[str]]]:
    """Yield a recipe, then variants that need less memory for the same work.

    Each comes with the command-line words that make it.
    """
    words: list[str] = []
    yield run, words
    if run.training.micro_batch_size > 1:
        run = dataclasses.replace(
            run, training=dataclasses.replace(run.training, micro_batch_size=1)
        )
        words = [*words, "training.micro_batch_size=1"]
        yield run, words
    if run.training.recompute_granularity is None:
        run = dataclasses.replace(
            run, training=dataclasses.replace(run.training, recompute_granularity="full")
        )
        yield run, [*words, "training.recompute_granularity=full"]


def _is_possible(architecture: Architecture, run: Recipe, processes: int) -> bool:
    try:
        check_layout(run, architecture, processes)
    except UsageError:
        return False
    return True
