"""The layouts at which each family is compared with one process."""

import dataclasses
import math

from megatron_ext.config.sections import Parallel

PROCESSES = 4
"""Of the run that computes all layouts."""


@dataclasses.dataclass(frozen=True)
class Layout:
    name: str
    parallel: Parallel
    processes: int
    experts: bool = False
    """Whether only mixtures of experts have it."""
    whole_experts: bool = False
    """Whether only models have it whose experts tensor parallelism cannot divide."""
    aux_loss_coeff: float = 1e-2
    """Coefficient of the auxiliary loss of experts."""

    @property
    def computes_logits(self) -> bool:
        """Whether the logits are computed; else only losses, which check them too."""
        return self.parallel.context_parallel_size == 1


def _layout(
    name: str, tensor: int = 1, pipeline: int = 1, context: int = 1, expert: int = 1
) -> Layout:
    parallel = Parallel(
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        context_parallel_size=context,
        expert_model_parallel_size=expert,
        sequence_parallel=tensor > 1,
        cp_comm_type="all_gather" if context > 1 else None,
    )
    # experts are divided among the replicas
    processes = math.prod((tensor, pipeline, context, expert))
    return Layout(name, parallel, processes, experts=expert > 1)


def _whole_experts(layout: Layout) -> Layout:
    """Return a layout with expert parallelism in place of the tensor parallelism of experts."""
    parallel = dataclasses.replace(
        layout.parallel, expert_tensor_parallel_size=1, expert_model_parallel_size=2
    )
    name = f"{layout.name}-ETP1"
    return dataclasses.replace(
        layout, name=name, parallel=parallel, experts=True, whole_experts=True
    )


SINGLE = _layout("TP1")
PLAIN_LOSS = dataclasses.replace(SINGLE, name="plain", experts=True, aux_loss_coeff=0.0)
"""As transformers computes it."""
_DIVIDED = (
    _layout("TP2", tensor=2),
    _layout("TP2xPP2", tensor=2, pipeline=2),
    _layout("EP2xTP2", expert=2, tensor=2),
)
LAYOUTS = {
    layout.name: layout
    for layout in (
        SINGLE,
        PLAIN_LOSS,
        _layout("PP2", pipeline=2),
        _layout("CP2", context=2),
        _layout("EP2", expert=2),
        *_DIVIDED,
        *map(_whole_experts, _DIVIDED),
    )
}
"""By name; under tensor parallelism with sequence parallelism."""
