"""Training on Megatron Core: what the core lacks for continued pretraining, and nothing that it has."""

import logging
import warnings

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
