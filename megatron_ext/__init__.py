"""Training on Megatron Core: only what the core lacks for continued pretraining."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder

# Said by the core, or by PyTorch for the core's own calls, nothing that a user could change.
_UNHELPFUL = (
    "Apex (is|are) not installed",  # `platforms` decides what runs where
    "full scope is deprecated",
    "load_state_dict. is deprecated",
    "Please use DTensor",
    "torch.distributed.(reduce_scatter|all_gather)",
    "The .grad attribute of a Tensor that is not a leaf",
    "The argument order of load has been changed",
    "torch.distributed is disabled, unavailable or uninitialized, assuming the intent",
    ".* is experimental and still under active development",
    "barrier\\(\\): using the device under current context",  # which `platforms` has set
)
for _message in _UNHELPFUL:
    warnings.filterwarnings("ignore", message=f".*{_message}")
logging.getLogger("megatron").setLevel(logging.ERROR)  # deprecations among its own parts


class _BeforeTheCore(MetaPathFinder):
    """Prepares the process for Megatron Core the moment before it is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """Find nothing, but see what is looked for."""
        if name != "megatron.core":
            return
        import torch

        # lets communication overlap with computation; read at CUDA's start
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        # a login node, a container: the core would call their kernels
        if not torch.cuda.is_available():
            for package in ("transformer_engine", "apex"):
                sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # as if it were not installed


sys.meta_path.insert(0, _BeforeTheCore())
