"""The interface to the hardware: everything that differs between CUDA and the CPU.

No other file asks which platform it runs on.
"""

import contextlib
import dataclasses
import datetime
import importlib.util
import os
import platform
import resource
import socket
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import psutil
import torch
from packaging.version import Version

from galen.errors import DataError, UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.option_files import read_overlap
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import CommunicationType, Parallel
from megatron_ext.config.sink_checks import engine_problems
from megatron_ext.hardware import numa
from megatron_ext.planner.gpus import peak_bf16_flops
from megatron_ext.resilience.signals import allow_interrupt

_APEX_KERNEL = "fused_weight_gradient_mlp_cuda"
_PACKED_ATTENTION: dict[CommunicationType, str] = {
    "p2p": "1.10",
    "a2a": "2.10",
    "all_gather": "2.15",
    "a2a+p2p": "2.19",
}
"""First versions of Transformer Engine whose attention takes packed documents (thd layout), by the
communication of context parallelism."""
_BLOCKWISE_CUDA = (12, 9)
"""First CUDA version with GEMMs of FP8 blocks, which Transformer Engine checks in a forward."""


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """What this process runs on."""

    device: torch.device
    backend: str
    """Communication backend of torch.distributed: nccl or gloo."""
    transformer_engine: bool
    """Whether layers are Transformer Engine's (CUDA with the package installed) or PyTorch's."""

    @property
    def model_options(self) -> dict[str, Any]:
        """Fields of Megatron's TransformerConfig that depend on the kernels at hand."""
        return {
            "use_cpu_initialization": self.device.type == "cpu",
            "apply_rope_fusion": self.transformer_engine,
            "bias_activation_fusion": self.device.type == "cuda",
            # Megatron-LM always frees a stage's output when it is sent. NCCL keeps the memory until
            # then; gloo would send what an interleaved pipeline has overwritten meanwhile.
            "deallocate_pipeline_outputs": self.device.type == "cuda",
            "masked_softmax_fusion": False,  # for the core's own attention, which no platform uses
            # Transformer Engine's layers do it themselves, the core's with a kernel of NVIDIA's
            # apex; `model.build` turns it off for the latter if that is missing
            "gradient_accumulation_fusion": (
                self.transformer_engine
                or (
                    self.device.type == "cuda"
                    and importlib.util.find_spec(_APEX_KERNEL) is not None
                )
            ),
        }

    @property
    def expert_options(self) -> dict[str, Any]:
        """Fields of Megatron's TransformerConfig for a mixture of experts."""
        return {
            # else the experts are computed one by one
            "moe_grouped_gemm": self.transformer_engine,
            "moe_permute_fusion": self.transformer_engine,
            "moe_router_dtype": "fp32",
        }

    @property
    def blockwise_loss(self) -> bool:
        """Whether the loss is computed a block of rows at a time.

        It means less memory traffic on a CPU, but many small kernels on a GPU.
        """
        return self.device.type == "cpu"

    @property
    def name(self) -> str:
        """Device and layers, for messages."""
        return (
            f"{self.device.type} with"
            f" {'Transformer Engine' if self.transformer_engine else 'PyTorch'} layers"
        )

    @property
    def pin_memory(self) -> bool:
        """Whether batches are copied to the device from pinned memory."""
        return self.device.type == "cuda"

    @property
    def peak_flops(self) -> float | None:
        """Peak bf16 FLOP/s of the device, or None where it is not known."""
        if self.device.type != "cuda":
            return None
        return peak_bf16_flops(torch.cuda.get_device_name(self.device))

    @property
    def device_name(self) -> str:
        """Return the vendor's name of the device."""
        return (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else platform.processor() or platform.machine()
        )

    @property
    def memory(self) -> int:
        """Return the bytes of the device's memory, or the machine's."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        return psutil.virtual_memory().total

    @property
    def peak_memory(self) -> int:
        """Return the peak bytes that this process has allocated, on the device or the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @property
    def memory_figures(self) -> dict[str, int]:
        """Figures of the step log: the peak bytes allocated on a GPU.

        None on a CPU, where the resident memory varies with the machine.
        """
        return {"peak_memory": self.peak_memory} if self.device.type == "cuda" else {}

    @property
    def new_event(self) -> Callable[[], Any]:
        """What makes a mark in the device's work: record(), elapsed_time(later) in milliseconds."""
        if self.device.type == "cuda":
            return partial(torch.cuda.Event, enable_timing=True)
        from megatron_ext.hardware.cpu_platform import HostEvent

        return HostEvent

    @property
    def probe_size(self) -> tuple[int, torch.dtype, int, int]:
        """Rows and type of the GEMMs that probe the speed, their number, and numbers to copy."""
        if self.device.type == "cuda":
            return 4096, torch.bfloat16, 4, 2**26
        return 128, torch.float32, 1, 2**18

    def check_model(self, run: Recipe, architecture: Architecture) -> None:
        """Refuse a model that this platform has no kernels for.

        Raises:
            UsageError: names the keys and what they need.
        """
        if not self.transformer_engine:
            return
        from megatron.core.utils import get_te_version

        cudnn = torch.backends.cudnn.version() or 0
        if problems := engine_problems(run, architecture, get_te_version(), cudnn):
            raise UsageError(f"{'; '.join(problems)}; this run is on {self.name}")

    def check(self, run: Recipe) -> None:
        """Refuse what this platform has no kernels for.

        Raises:
            UsageError: names the keys and what they need.
        """
        problems = self._missing_engine(run)
        if self.device.type != "cuda":
            device_settings = {
                "optimizer.optimizer_cpu_offload": run.optimizer.optimizer_cpu_offload,
                "training.cross_entropy_loss_fusion": run.training.cross_entropy_loss_fusion,
                **({} if run.profile is None else run.profile.gpu_settings),
                "parallel.use_sharp": run.parallel.use_sharp,
                "parallel.nccl_communicator_config_path": (
                    run.parallel.nccl_communicator_config_path is not None
                ),
            }
            problems += [f"{key} needs a GPU" for key, is_set in device_settings.items() if is_set]
        if self.transformer_engine and run.data.reset_attention_mask:
            problems += _missing_packed_attention(run.parallel)
        if run.training.fp8_format and self.transformer_engine:
            problems += self._missing_fp8(run.training.fp8_recipe)
        if problems:
            raise UsageError(f"{'; '.join(problems)}; this run is on {self.name}")

    def _missing_engine(self, run: Recipe) -> list[str]:
        """Return the settings that need Transformer Engine, if this platform lacks it."""
        if self.transformer_engine:
            return []
        training = run.training
        settings = {
            "training.fp8_format": training.fp8_format is not None,
            "parallel.tp_comm_overlap": run.parallel.tp_comm_overlap,
            "parallel.cp_comm_type other than all_gather": bool(
                run.parallel.communication_types - {"all_gather"}
            ),
            f"training.attention_backend: {training.attention_backend}": (
                training.attention_backend not in ("auto", "local")
            ),
            "training.recompute_modules: moe_act": "moe_act" in (training.recompute_modules or []),
            "training.cpu_offloading_num_layers": training.cpu_offloading_num_layers > 0,
            "training.fine_grained_activation_offloading": (
                training.fine_grained_activation_offloading
            ),
            "optimizer.use_precision_aware_optimizer": run.optimizer.use_precision_aware_optimizer,
        }
        return [f"{key} needs Transformer Engine" for key, is_set in settings.items() if is_set]

    def _missing_fp8(self, fp8_recipe: str) -> list[str]:
        """Return why this GPU cannot compute in FP8 by a recipe."""
        capability = torch.cuda.get_device_capability(self.device)
        if capability < (8, 9):
            return ["training.fp8_format needs a GPU of the Ada, Hopper or a later generation"]
        if fp8_recipe == "blockwise" and capability[0] != 9:
            return ["training.fp8_recipe: blockwise needs Hopper GPUs"]
        if fp8_recipe == "blockwise" and _cuda_version() < _BLOCKWISE_CUDA:
            return [
                f"training.fp8_recipe: blockwise needs a PyTorch for CUDA"
                f" {'.'.join(map(str, _BLOCKWISE_CUDA))} or later (this one is for CUDA"
                f" {torch.version.cuda}; use tensorwise)"
            ]
        if fp8_recipe == "mxfp8" and capability[0] < 10:
            return [
                "training.fp8_recipe: mxfp8 needs Blackwell GPUs (use tensorwise or blockwise on"
                " Hopper)"
            ]
        return []

    def bind_cpus(self) -> str | None:
        """Bind this process to the processors near its GPU; return them, None if there are none."""
        if self.device.type != "cuda":
            return None
        gpu: Any = torch.cuda.get_device_properties(self.device)
        if not hasattr(gpu, "pci_domain_id"):  # another build of PyTorch
            return None
        return numa.bind(f"{gpu.pci_domain_id:04x}:{gpu.pci_bus_id:02x}:{gpu.pci_device_id:02x}.0")

    def start_tp_overlap(self, run: Recipe, hidden_size: int) -> None:
        """Allocate Transformer Engine's buffers for tensor-parallel overlap, if the recipe asks."""
        if not run.parallel.tp_comm_overlap:
            return
        from transformer_engine.pytorch.module.base import UserBufferQuantizationMode, initialize_ub

        training = run.training
        settings = run.parallel.tp_comm_overlap_cfg
        modes = [
            (
                UserBufferQuantizationMode.FP8
                if training.fp8_format
                else UserBufferQuantizationMode.NONE
            )
        ]
        if training.first_last_layers_bf16:  # these have buffers of their own
            modes.append(UserBufferQuantizationMode.NONE)
        initialize_ub(
            shape=[
                run.data.seq_length
                * training.micro_batch_size
                // run.parallel.context_parallel_size,
                hidden_size,
            ],
            tp_size=run.parallel.tensor_model_parallel_size,
            quantization_modes=modes,
            ub_cfgs=None if settings is None else read_overlap(settings),
            bootstrap_backend="nccl",
        )

    def init_distributed(self, timeout_minutes: float = 10) -> None:
        """Join torchrun's process group from the environment, or make a group of one.

        Raises:
            UsageError: the environment describes the group incompletely.
            DataError: the other processes cannot be met.
        """
        if torch.distributed.is_initialized():
            return
        is_single = "RANK" not in os.environ
        names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if name not in os.environ]
        if missing and not is_single:
            raise UsageError(
                f"RANK is set, {' and '.join(missing)} not: start the run with torchrun, or set all"
                " of them"
            )
        try:
            with allow_interrupt():
                torch.distributed.init_process_group(
                    backend=self.backend,
                    rank=0 if is_single else int(os.environ["RANK"]),
                    world_size=1 if is_single else int(os.environ["WORLD_SIZE"]),
                    store=_local_store() if is_single else None,
                    timeout=datetime.timedelta(minutes=timeout_minutes),
                )
        except torch.distributed.DistError as error:
            address = f"{os.environ.get('MASTER_ADDR')}, port {os.environ.get('MASTER_PORT')}"
            raise DataError(
                f"cannot meet the other processes at {address} (MASTER_ADDR, MASTER_PORT):"
                f" {str(error).splitlines()[0]}"
            ) from None

    @staticmethod
    def leave_distributed() -> None:
        """Leave the process group once all have come so far."""
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Let PyTorch refuse nondeterministic kernels inside the block, if enabled."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(enabled or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _missing_packed_attention(parallel: Parallel) -> list[str]:
    """Return which communication Transformer Engine's attention lacks for packed documents."""
    from megatron.core.utils import get_te_version

    problems = []
    for name in sorted(parallel.communication_types):
        minimum = _PACKED_ATTENTION[name]
        if get_te_version() < Version(minimum):
            problems.append(
                f"parallel.cp_comm_type: {name} with data.reset_attention_mask needs Transformer"
                f" Engine {minimum} or later (p2p any)"
            )
    return problems


def _local_store() -> torch.distributed.TCPStore:
    """Return the store of a group of one process, which no other machine can reach.

    It is the kind of store that several processes have; NCCL is not tested with others.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return torch.distributed.TCPStore(
        "127.0.0.1", port, world_size=1, is_master=True, master_listen_fd=listener.detach()
    )


def _cuda_version() -> tuple[int, ...]:
    """Return the CUDA version that PyTorch is built for."""
    return tuple(int(number) for number in str(torch.version.cuda).split("."))


@contextlib.contextmanager
def single_process_groups() -> Iterator[None]:
    """Destroy, after the block, the groups of a process that is the only one of its run.

    In a notebook the next run creates its own. One of several processes ends instead: others may
    wait for it.
    """
    is_single = "RANK" not in os.environ and not torch.distributed.is_initialized()
    try:
        yield
    finally:
        if is_single:
            from megatron.core import parallel_state

            parallel_state.destroy_model_parallel()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


@cache
def current_platform() -> Platform:
    """Return this process's platform, prepared for Megatron; cached."""
    platform = detect_platform()
    if platform.transformer_engine:
        _check_transformer_engine()
    if platform.device.type == "cpu":
        from megatron_ext.hardware import cpu_platform

        cpu_platform.install()
    return platform


def _check_transformer_engine() -> None:
    """Refuse an installation that does not load.

    Megatron would treat it as missing, or fail in its own way.

    Raises:
        UsageError: says why it does not load.
    """
    try:
        importlib.import_module("transformer_engine.pytorch")
    # a missing or old library and a build for another PyTorch each fail in another way
    except Exception as error:
        raise UsageError(
            f"Transformer Engine is installed but does not load: {type(error).__name__}: {error}."
            f" Install one that fits PyTorch {torch.__version__} (requirements-gpu.txt), or none:"
            " pip uninstall transformer-engine"
        ) from error


def detect_platform() -> Platform:
    """Return this process's platform, unprepared, which is enough to communicate."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return Platform(
            device=device,
            backend="nccl",
            transformer_engine=importlib.util.find_spec("transformer_engine") is not None,
        )
    return Platform(device=torch.device("cpu"), backend="gloo", transformer_engine=False)
