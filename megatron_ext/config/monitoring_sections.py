"""The sections of a pretraining recipe that only watch a run: profile and Weights & Biases."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class Profile:
    """A profile of some steps, in RUN/profile/."""

    steps: tuple[int, int]
    """[first, last] profiled step, numbered as in log.jsonl."""
    ranks: list[int] = Field(default_factory=lambda: [0])
    """Profiled ranks; [] for all."""
    use_pytorch_profiler: bool = True
    """Write a trace and a table of the slowest operations with PyTorch's profiler.

    With false, start and stop a profile of Nsight Systems instead (nsys profile
    --capture-range=cudaProfilerApi), with NVTX ranges of the phases.
    """
    record_shapes: bool = False
    """Also record the shapes of the tensors (PyTorch's profiler)."""
    with_stack: bool = False
    """Also record the source lines of the operations (PyTorch's profiler)."""
    record_memory_history: bool = False
    """Also write a snapshot of the GPU memory with the history of all allocations."""


@dataclass(kw_only=True, config=STRICT)
class Wandb:
    """Weights & Biases (pip install -e '.[wandb]').

    Its key is read from WANDB_API_KEY or `wandb login`, never from a recipe.
    """

    project: str = Field(min_length=1)
    """Project at Weights & Biases."""
    entity: str | None = None
    """User or team; that of the key by default."""
    name: str | None = None
    """Name of the run; that of the run folder by default."""
    group: str | None = None
    """Group of runs."""
    tags: list[str] = Field(default_factory=list)
    """Tags of the run."""
    mode: Literal["online", "offline"] | None = None
    """Mode of wandb; offline stores the metrics in the run folder for a later `wandb sync`.

    By default that of WANDB_MODE, or online.
    """
