"""FSDP on CPUs, where accelerate would train by DDP whatever the configuration."""

from collections.abc import Mapping
from typing import Any


def use(accelerator: Any, options: Mapping[str, Any]) -> None:
    """Set an accelerator of CPU processes to FSDP, as its constructor does with GPUs.

    Args:
        accelerator: accelerate's, just made.
        options: of `FullyShardedDataParallelPlugin`.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(**options)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    for state in (PartialState(), accelerator.state):  # the second is refreshed from the first
        state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
