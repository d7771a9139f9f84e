"""Environment variables of a training process on GPUs, by the layout of its run; no torch here.

CUDA, PyTorch's allocator, NCCL, OpenMP and Transformer Engine each read theirs once, when they are
loaded or start. The values are those of Megatron-Bridge's recipes for H100. A variable that is
already set keeps its value.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from galen.errors import UsageError
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import host_memory
from megatron_ext.resilience import hang_report

_LAYERNORM_SM_MARGIN = 20
_OLD_NAMES = {
    "PYTORCH_ALLOC_CONF": "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_FR_BUFFER_SIZE": "TORCH_NCCL_TRACE_BUFFER_SIZE",
    "TORCH_FR_DUMP_TEMP_FILE": "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
}
"""Older names, which PyTorch still reads."""
_DETERMINISTIC = {
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": ("0",),
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"),
    "NCCL_ALGO": ("Ring", "^NVLS", "CollnetDirect", "CollnetChain"),
}
"""Values of a deterministic run, the first by default (megatron/training/determinism.py of
Megatron-LM)."""
_ATTENTION = {
    "flash": "NVTE_FLASH_ATTN",
    "fused": "NVTE_FUSED_ATTN",
    "unfused": "NVTE_UNFUSED_ATTN",
}
"""Transformer Engine's switches of its attention backends, which the core sets."""


def layout_environment(run: Recipe, local_world_size: int, cpus: int) -> dict[str, str]:
    """Return the environment variables that a run's layout wants.

    Args:
        run: its recipe.
        local_world_size: number of its processes on this machine.
        cpus: number of processors that they may use together.
    """
    parallel = run.parallel
    ordered = parallel.tensor_model_parallel_size > 1 or parallel.context_parallel_size > 1
    variables = {
        # With one queue, the communication of tensor and context parallelism starts before the
        # matrix product that it overlaps with; without the two, more queues overlap better.
        "CUDA_DEVICE_MAX_CONNECTIONS": "1" if ordered else "32",
        # less memory is lost to fragments; CUDA graphs would need NCCL_GRAPH_REGISTER=0 with it
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        # communication kernels are not queued behind computation
        "TORCH_NCCL_HIGH_PRIORITY": "1",
        # the last collectives, which `watchdog` writes when a run hangs, and NCCL otherwise
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": str(
            Path(run.output).absolute() / hang_report.FOLDER / "nccl_trace_rank_"
        ),
        # torchrun's value, unless the optimizer's step runs on the CPU
        "OMP_NUM_THREADS": "1",
    }
    if run.training.fine_grained_activation_offloading:
        # the interface that Megatron Core's offload calls, in Transformer Engine 2.10 and later
        variables["NVTE_CPU_OFFLOAD_V1"] = "1"
    if run.optimizer.optimizer_cpu_offload:
        variables["OMP_NUM_THREADS"] = str(max(1, cpus // local_world_size))
    if parallel.overlap_grad_reduce or parallel.overlap_param_gather:
        # the norm's kernels wait for all multiprocessors, and thus for the collectives of data
        # parallelism, unless they leave some to them
        for name in ("NVTE_FWD_LAYERNORM_SM_MARGIN", "NVTE_BWD_LAYERNORM_SM_MARGIN"):
            variables[name] = str(_LAYERNORM_SM_MARGIN)
    if run.training.deterministic_mode:
        variables |= {name: values[0] for name, values in _DETERMINISTIC.items()}
    return variables


@contextlib.contextmanager
def applied(run: Recipe, local_world_size: int | None = None) -> Iterator[None]:
    """Set the run's environment inside the block, on a machine with a GPU driver.

    Enter it before PyTorch is imported. Afterwards the variables are those of before, also those
    that the core sets.

    Args:
        run: its recipe.
        local_world_size: number of its processes on this machine, if known.

    Raises:
        UsageError: a variable contradicts the recipe.
    """
    _check(run)
    before = {name: os.environ.get(name) for name in _ATTENTION.values()}
    added = {}
    if host_memory.may_have_gpu():
        processes = local_world_size or _local_world_size(os.environ)
        wanted = layout_environment(run, processes, len(os.sched_getaffinity(0)))
        added = {name: value for name, value in wanted.items() if _value(name) is None}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check(run: Recipe) -> None:
    """Check that no variable contradicts the recipe; the core would fail in an assertion.

    Raises:
        UsageError: one does.
    """
    backend = run.training.attention_backend
    for name, variable in _ATTENTION.items():
        expected = str(int(backend in (name, "auto")))
        if os.environ.get(variable, expected) != expected:
            raise UsageError(
                f"{variable}={os.environ[variable]} contradicts training.attention_backend:"
                f" {backend}; unset the variable and choose with the key"
            )
    if not run.training.deterministic_mode or not host_memory.may_have_gpu():
        return
    for variable, accepted in _DETERMINISTIC.items():
        value = os.environ.get(variable)
        if value is not None and any(item.strip() not in accepted for item in value.split(",")):
            raise UsageError(
                f"{variable}={value} contradicts training.deterministic_mode; unset it, or use"
                f" {' or '.join(accepted)}"
            )


def describe(run: Recipe) -> str:
    """Return this process's values of the run's variables; empty without a GPU driver."""
    if not host_memory.may_have_gpu():
        return ""
    wanted = layout_environment(run, _local_world_size(os.environ), len(os.sched_getaffinity(0)))
    return " ".join(f"{name}={_value(name)}" for name in wanted)


def _value(name: str) -> str | None:
    return os.environ.get(name, os.environ.get(_OLD_NAMES.get(name, name)))


def _local_world_size(environment: Mapping[str, str]) -> int:
    """Return the processes of this run on this machine, by torchrun's or Slurm's variables."""
    if "LOCAL_WORLD_SIZE" in environment:
        return int(environment["LOCAL_WORLD_SIZE"])
    # 8(x4): eight tasks on each of four nodes
    tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return int(tasks[0]) if tasks else 1
