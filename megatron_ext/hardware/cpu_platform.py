"""Stand-ins that let Megatron Core run without CUDA.

The parallelism is the same, over gloo, on PyTorch's CPU kernels.

Megatron Core asks for CUDA in three ways: tensors made on the device "cuda", a few `torch.cuda`
calls (current device, synchronize, streams, nvtx), and a random number tracker that saves CUDA
generator states. `install` answers all three with the CPU. It changes `torch.cuda` for the entire
process, so only the entry points of a run on the CPU call it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from megatron.core.distributed import param_and_grad_buffer
from megatron.core.tensor_parallel import mappings
from megatron.core.tensor_parallel import random as megatron_random
from megatron.core.transformer.moe import moe_utils, token_dispatcher
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")


class CudaOnCpu(TorchFunctionMode):
    """Redirects CUDA devices to the CPU and lets CPU tensors pass Megatron's type checks."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run `func` with every "cuda" device replaced by the CPU."""
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        # asks "torch.cuda.FloatTensor?"
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if _is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": _CPU}
        if func is torch.Tensor.to and any(_is_cuda(argument) for argument in args[1:]):
            args = (args[0], *(_CPU if _is_cuda(argument) else argument for argument in args[1:]))
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        return func(*args, **kwargs)


class CpuRngStatesTracker(megatron_random.CudaRNGStatesTracker):
    """Megatron's tracker of named random states, over the CPU generator."""

    def add(self, name: str, seed: int) -> None:
        """Add the state that `seed` gives under `name`."""
        if name in self.states_ or seed in self.seeds_:
            raise ValueError(f"random state {name!r} or seed {seed} is tracked already")
        self._is_initialized = True
        self.seeds_.add(seed)
        self.states_[name] = torch.Generator().manual_seed(seed).get_state()

    @contextlib.contextmanager
    def fork(self, name: str = megatron_random._MODEL_PARALLEL_RNG_TRACKER_NAME) -> Iterator[None]:
        """Draw from the state `name` inside the block, from the default state after it."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self.states_[name])
        try:
            yield
        finally:
            self.states_[name] = torch.get_rng_state()
            torch.set_rng_state(outside)


class HostEvent:
    """A mark in the work of a device that does one thing after another: the process's own clock."""

    def record(self) -> None:
        """Set the mark here."""
        self.time = time.perf_counter()

    def query(self) -> bool:
        """Return whether the work before this mark is done."""
        return True

    def synchronize(self) -> None:
        """Wait for the work before this mark."""

    def elapsed_time(self, later: "HostEvent") -> float:
        """Return the milliseconds from this mark to a later one."""
        return 1000 * (later.time - self.time)


class _Stream:
    """A stream of a device that does one thing after another."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def synchronize(self) -> None:
        """Return at once: all work is done when a call returns."""

    def wait_stream(self, stream: Any) -> None:
        """Return at once."""

    def wait_event(self, event: Any) -> None:
        """Return at once."""

    def record_event(self, event: HostEvent | None = None) -> HostEvent:
        """Return an event, or `event`, recorded now."""
        event = event or HostEvent()
        event.record()
        return event


def install() -> None:
    """Answer Megatron's CUDA calls with the CPU, in this process, from now on.

    Calling it again changes nothing.
    """
    if isinstance(megatron_random._CUDA_RNG_STATE_TRACKER, CpuRngStatesTracker):
        return
    cuda: Any = torch.cuda
    cuda.current_device = lambda: _CPU
    # a function of its own for each: torch.compile refuses one object under two names
    for name in ("set_device", "synchronize", "empty_cache", "manual_seed"):
        setattr(cuda, name, _new_no_op())
    cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    cuda.Stream = _Stream
    cuda.current_stream = lambda *_, **__: _Stream()
    cuda.default_stream = lambda *_, **__: _Stream()
    cuda.stream = lambda _: contextlib.nullcontext()
    cuda.nvtx.range_push = _new_no_op()
    cuda.nvtx.range_pop = _new_no_op()
    megatron_random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    megatron_random._CUDA_RNG_STATE_TRACKER = CpuRngStatesTracker()
    megatron_random._CUDA_RNG_STATE_TRACKER_INITIALIZED = True
    megatron_random.initialize_rng_tracker = lambda *_, **__: None
    for name in ("dist_all_gather_func", "dist_reduce_scatter_func"):
        setattr(param_and_grad_buffer, name, _unless_alone(getattr(param_and_grad_buffer, name)))
    # Transformer Engine's, which the router of experts looks up; None: PyTorch's product
    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None
    gather = mappings._gather_along_first_dim
    mappings._gather_along_first_dim = _gather_any_sizes(gather)
    reduce_scatter = mappings._reduce_scatter_along_first_dim
    mappings._reduce_scatter_along_first_dim = _reduce_scatter_any_sizes(reduce_scatter)
    token_dispatcher.maybe_move_tensor_to_cpu = _as_numpy
    CudaOnCpu().__enter__()


def _new_no_op() -> Callable[..., None]:
    return lambda *_, **__: None


def _gather_any_sizes(gather: Callable) -> Callable:
    """Gather tensors of different lengths, which gloo cannot: padded to the longest."""

    def run(
        source: torch.Tensor, group: Any, sizes: Sequence[int] | None = None, *options: Any
    ) -> Any:
        if sizes is None or group.size() == 1:
            return gather(source, group, sizes, *options)
        longest = max(sizes)
        padded = source.new_zeros(longest, *source.shape[1:])
        padded[: len(source)] = source
        gathered = gather(padded, group).view(group.size(), *padded.shape)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    return run


def _reduce_scatter_any_sizes(reduce_scatter: Callable) -> Callable:
    """Scatter a sum in parts of different lengths, which gloo cannot: sum all, keep the own."""

    def run(
        source: torch.Tensor, group: Any, sizes: Sequence[int] | None = None, *options: Any
    ) -> Any:
        if sizes is None or group.size() == 1:
            return reduce_scatter(source, group, sizes, *options)
        total = source.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=group)
        return total.split(list(sizes))[group.rank()]

    return run


def _as_numpy(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    """Return a tensor, as the array of NumPy that the collectives take for split sizes.

    Megatron's function only converts what it moves from a GPU.
    """
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor


def _is_cuda(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


def _unless_alone(collective: Callable) -> Callable:
    """Skip a collective of the data-parallel buffers in a group of one.

    There gloo would copy the entire buffer twice.
    """

    def run(
        output: torch.Tensor, source: torch.Tensor, *arguments: Any, group: Any, **options: Any
    ) -> Any:
        if group.size() > 1:
            return collective(output, source, *arguments, group=group, **options)
        if output.data_ptr() != source.data_ptr():
            output.copy_(source)
        return None

    return run
