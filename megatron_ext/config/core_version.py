"""Options that need a later Megatron Core than the oldest that is supported; no torch here."""

import importlib.metadata

from packaging.version import Version

from galen.errors import UsageError
from megatron_ext.config.recipe import Recipe

_PACKAGE = "megatron-core"


def check(run: Recipe) -> None:
    """Refuse options that the installed megatron-core lacks.

    Raises:
        UsageError: names the key and the version that has it.
    """
    patterns = run.optimizer.ddp_param_name_patterns_for_fp32_local_accumulation
    settings = {
        "optimizer.ddp_param_name_patterns_for_fp32_local_accumulation": ("0.19", bool(patterns)),
        # before, a validation left its state to the next step
        "training.fine_grained_activation_offloading": (
            "0.19",
            run.training.fine_grained_activation_offloading,
        ),
    }
    installed = importlib.metadata.version(_PACKAGE)
    for key, (needed, is_set) in settings.items():
        if is_set and Version(installed) < Version(needed):
            raise UsageError(
                f"{key} needs {_PACKAGE} {needed} or later (Python 3.12), this is {installed};"
                " remove the key"
            )
