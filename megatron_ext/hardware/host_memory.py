"""Checks before the start that a run on CPUs fits into memory, since the system kills it if not.

No torch here.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import psutil

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory_model, model_state

GIB = 2**30
LIBRARIES = 0.6 * GIB
"""Bytes of a process without a model, measured: Python, PyTorch, Megatron Core."""
READER = 0.15 * GIB
"""Bytes of a data loader process, measured."""
SHORTEST = 256
"""Shortest sequence, in tokens, that is proposed."""
_GPU_DEVICES = ("nvidiactl", "nvidia[0-9]*", "nvhost-*", "nvgpu", "dxg", "kfd")
"""Device files of GPU drivers: NVIDIA's, those of Jetson, of Windows' subsystem and AMD's."""


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Return whether a GPU driver is loaded. PyTorch knows exactly, but takes seconds to import."""
    return any(any(devices.glob(pattern)) for pattern in _GPU_DEVICES)


def available() -> float:
    """Return the bytes that this process and its peers can still allocate.

    That is the free memory, or the limit of their control group.
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
        # in a container the path may be the host's, and only the root exist
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
    """Return the bytes of a group's page cache, which the system frees when memory is needed."""
    try:
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0.0
    return sum(float(counts.get(name, 0)) for name in ("inactive_file", "active_file"))


def process_bytes(
    architecture: Architecture, run: Recipe, processes: int, stage: int
) -> dict[str, float]:
    """Return the peak bytes of a process of a pipeline stage, by their use.

    The peak is a checkpoint: each process gathers its replicas' shards of the optimizer's state
    and copies the tensors that it writes, while it still holds the memory of a step's activations,
    most of it in blocks too small to return to the system.
    """
    memory = memory_model.stage_memory(architecture, run, processes, stage, fused=False)
    logits = 0.0
    # megatron_ext.model.cross_entropy makes no second tensor of their size
    if stage == run.parallel.pipeline_model_parallel_size - 1:
        logits = memory_model.logits_bytes(architecture, run)["logits"]
    shard = model_state.optimizer_shard(architecture, run, processes, stage)
    state = memory.weights / memory.parameters + model_state.OPTIMIZER_STATE
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations + memory.dispatch,
        "logits": logits,
        "checkpoint": model_state.OPTIMIZER_STATE * memory.parameters + state * shard,
        "libraries": LIBRARIES + READER * run.data.num_workers,
    }


def machine_bytes(
    architecture: Architecture, run: Recipe, processes: int, local_processes: int
) -> float:
    """Return the bytes that the `local_processes` of a run's processes on this machine need.

    Their stages are known only if all processes are local.
    """
    stages = run.parallel.pipeline_model_parallel_size
    stage_bytes = [
        sum(process_bytes(architecture, run, processes, stage).values()) for stage in range(stages)
    ]
    if local_processes == processes:
        return sum(stage_bytes) * processes / stages
    return max(stage_bytes) * local_processes


def check(architecture: Architecture, run: Recipe, processes: int, local_processes: int) -> None:
    """Refuse a run that needs more memory than this machine has.

    Args:
        architecture: the model.
        run: the recipe.
        processes: number of the run's processes.
        local_processes: number of those on this machine.

    Raises:
        UsageError: names the needed and the free memory, and a setting that fits.
    """
    free = available()
    needed = machine_bytes(architecture, run, processes, local_processes)
    if needed <= free or not run.resilience.check_memory:
        return
    last = run.parallel.pipeline_model_parallel_size - 1
    sizes = process_bytes(architecture, run, processes, last)
    described = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sizes.items())
    noun = "process" if local_processes == 1 else "processes"
    raise UsageError(
        f"the run needs about {needed / GIB:.1f} GiB on this machine, where {free / GIB:.1f} GiB"
        f" are free: {local_processes} {noun}, one of them {sum(sizes.values()) / GIB:.1f} GiB"
        f" ({described}). {_fitting_setting(architecture, run, processes, local_processes, free)};"
        " to start anyway, set resilience.check_memory=false"
    )


def _fitting_setting(
    architecture: Architecture, run: Recipe, processes: int, local_processes: int, free: float
) -> str:
    """Return a change of the recipe, or of the number of processes, with which the run fits.

    Shorter sequences come last.
    """
    numbers = [processes]
    if local_processes == processes:
        numbers = [processes >> halved for halved in range(processes.bit_length())]
    shorter_ones = (run.data.seq_length >> halved for halved in range(1, 32))
    lengths = [run.data.seq_length, *(length for length in shorter_ones if length >= SHORTEST)]
    for length, number in itertools.product(lengths, numbers):
        shorter = dataclasses.replace(run, data=dataclasses.replace(run.data, seq_length=length))
        for changed, words in _smaller(shorter):
            if not _is_possible(architecture, changed, number):
                continue
            local = min(local_processes, number)
            if machine_bytes(architecture, changed, number, local) > free:
                continue
            fewer = [] if number == processes else [f"--nproc-per-node {number}"]
            less = [] if length == run.data.seq_length else [f"data.seq_length={length}"]
            return f"It fits with {' '.join([*fewer, *words, *less])}"
    return "Nothing smaller fits: use a smaller model or a larger machine"


def _smaller(run: Recipe) -> Iterator[tuple[Recipe, list[str]]]:
    """Yield a recipe, then variants that need less memory for the same training.

    Each comes with its command-line overrides.
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
