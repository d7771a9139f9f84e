"""Training on Megatron Core: only what the core lacks for continued pretraining."""

import logging
import sys
import warnings

from galen.commands import explain_imports_of_scripts

# Warnings of the core, or of PyTorch about the core's own calls: nothing that a user could change.
_IGNORED_WARNINGS = (
    "Apex (is|are) not installed",  # `platforms` decides what runs where
    "full scope is deprecated",
    "load_state_dict. is deprecated",
    "Please use DTensor",
    "torch.distributed.(reduce_scatter|all_gather)",
    "The .grad attribute of a Tensor that is not a leaf",
    "The argument order of load has been changed",
    "torch.distributed is disabled, unavailable or uninitialized, assuming the intent",
    ".*CUDA_DEVICE_MAX_CONNECTIONS",  # which `process_environment` sets
    "Profiler won't be using warmup",  # a start resumed at a profiled step
    ".* is experimental and still under active development",
    "`sequence_parallel` is set to `True`, but tensor model parallel",  # of undivided experts
    "barrier\\(\\): using the device under current context",  # which `platforms` has set
)
_GPU_PACKAGES = ("transformer_engine", "apex")


def bootstrap() -> None:
    """Prepare this process for Megatron Core; every entry point calls it before the core's import.

    Without a GPU (a login node, a container), packages whose kernels the core would call count as
    not installed. Calling it again changes nothing.
    """
    import torch

    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{message}")
    logging.getLogger("megatron").setLevel(logging.ERROR)  # deprecations within the core
    if not torch.cuda.is_available():
        for package in _GPU_PACKAGES:
            # an import of it fails, as if it were not installed
            sys.modules.setdefault(package, None)  # type: ignore[arg-type]


explain_imports_of_scripts()
