"""The load of the experts and the router's losses, summed over all processes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel
from torch import Tensor

from megatron_ext.config.architecture import Architecture
from megatron_ext.model.router import BalancedRouter


@dataclasses.dataclass(frozen=True)
class ExpertStatistics:
    """Figures of some steps, the same on all processes."""

    load: list[list[float]]
    """Tokens of each expert of each layer, as multiples of the mean over the layer's experts."""
    aux_loss: float | None
    """Auxiliary loss without its coefficient, mean over the layers: 1 if the load is equal."""
    z_loss: float | None
    """The z-loss without its coefficient, mean over the layers."""

    def figures(self) -> dict[str, Any]:
        """Return the fields of the log line."""
        highest = [max(layer) for layer in self.load]
        unused = [layer.count(0.0) / len(layer) for layer in self.load]
        fields: dict[str, Any] = {
            "load_balancing_loss": self.aux_loss,
            "z_loss": self.z_loss,
            "expert_load_max": round(max(highest), 4),
            "expert_load_min": round(min(min(layer) for layer in self.load), 4),
            "unused_experts": sum(unused) / len(unused),
            "expert_load_max_by_layer": [round(load, 4) for load in highest],
        }
        return {name: value for name, value in fields.items() if value is not None}


def routers(model: Sequence[DistributedDataParallel]) -> Iterator[BalancedRouter]:
    """Yield the routers of this process's model chunks."""
    for chunk in model:
        for module in chunk.modules():
            if isinstance(module, BalancedRouter):
                yield module


def take_statistics(
    model: Sequence[DistributedDataParallel], architecture: Architecture, device: torch.device
) -> ExpertStatistics:
    """Return the statistics since the last call, and reset them (collective)."""
    experts = architecture.num_moe_experts or 0
    sums = torch.zeros(architecture.num_layers, experts + 2, dtype=torch.float64, device=device)
    for router in routers(model):
        sums[router.layer_number - 1] += router.take_statistics(device)
    torch.distributed.all_reduce(sums)
    return summarize(sums.cpu(), architecture)


def summarize(sums: Tensor, architecture: Architecture) -> ExpertStatistics:
    """Return the statistics, given the sums of the routers' [layers, experts + 2]."""
    counts = sums[:, :-2]
    # without dropped tokens; the losses are means over these
    tokens = counts.sum(1) / architecture.moe_router_topk
    losses = (sums[:, -2:] / tokens.clamp(min=1).unsqueeze(1)).mean(0).tolist()
    load = counts / counts.mean(1, keepdim=True).clamp(min=1e-9)
    return ExpertStatistics(load.tolist(), losses[0] or None, losses[1] or None)
