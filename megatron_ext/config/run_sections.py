"""The sections of a recipe that concern a run's supervision: resilience, profile and logging."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT, ResumeMayChange


@dataclass(kw_only=True, config=STRICT)
class Resilience:
    """Preemption, hangs, stragglers, failed steps."""

    exit_duration_in_mins: ResumeMayChange[float | None] = Field(default=None, gt=0)
    """Save and stop (exit code 75) so many minutes after the start of the process."""
    exit_trigger_file: ResumeMayChange[str | None] = None
    """Save and stop when this file appears; RUN/stop by default."""
    distributed_timeout_minutes: ResumeMayChange[float] = Field(default=10.0, gt=0)
    """Abort if a process makes no progress for so long, and name the processes that hang."""
    check_memory: ResumeMayChange[bool] = True
    """Refuse a run on CPUs whose estimated memory exceeds the free memory."""
    straggler_interval: ResumeMayChange[int] = Field(default=100, ge=0)
    """Steps between comparisons of the processes' speed; 0 disables them."""
    straggler_ratio: ResumeMayChange[float] = Field(default=1.3, gt=1)
    """Report a process that takes more than this multiple of the median for the same GEMM, copy or
    Python loop."""
    max_skipped_steps: int = Field(default=100, ge=0)
    """Stop the run after more skipped steps than this.

    Steps are skipped for a non-finite loss or gradient, or for a loss spike.
    """
    check_for_nan_in_grad: ResumeMayChange[bool] = False
    """End the run at a gradient that is not finite, and name the rank that it comes from.

    It is checked before gradients are summed over the ranks. Otherwise the step is skipped.
    """
    loss_spike_threshold: float | None = Field(default=None, gt=1)
    """A loss above this multiple of the window's median is a spike.

    The run is rolled back to the last checkpoint and skips the data since then.
    """
    loss_spike_window: int = Field(default=100, ge=2)
    """Number of losses in the median; no spike is detected before half of them are known."""


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

    @property
    def gpu_settings(self) -> dict[str, bool]:
        """Settings that need a GPU, and whether they are made."""
        return {
            "profile.use_pytorch_profiler: false (Nsight Systems)": not self.use_pytorch_profiler,
            "profile.record_memory_history": self.record_memory_history,
        }


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
