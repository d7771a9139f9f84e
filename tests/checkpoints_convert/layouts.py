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
    aux_loss_coeff: float = 1e-2
    """Coefficient of the auxiliary loss of experts."""
    documents: bool = False
    """Whether a sequence holds two documents that do not attend to each other."""
    steps: int | None = None
    """Training steps; None for those of the comparison with one process."""

    @property
    def divided(self) -> bool:
        """Whether several processes have a part of the model."""
        return self.processes > 1

    @property
    def computes_logits(self) -> bool:
        """Whether the logits are computed; else only losses, which check them too."""
        return self.parallel.context_parallel_size == 1 and not self.documents


def _layout(
    name: str,
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
    expert: int = 1,
    complete_experts: bool = False,
    replicas: int = 1,
) -> Layout:
    parallel = Parallel(
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        context_parallel_size=context,
        expert_model_parallel_size=expert,
        expert_tensor_parallel_size=1 if complete_experts else None,
        sequence_parallel=tensor > 1,
        cp_comm_type="all_gather" if context > 1 else None,
    )
    processes = math.prod((tensor, pipeline, context, replicas, 1 if complete_experts else expert))
    return Layout(name, parallel, processes)


SINGLE = _layout("TP1")
PLAIN_LOSS = dataclasses.replace(SINGLE, name="plain", aux_loss_coeff=0.0, steps=1)
"""As transformers computes it."""
DOCUMENTS = dataclasses.replace(PLAIN_LOSS, name="documents", documents=True)
BOUND = 20
"""Where the second document of a sequence begins."""
LAYOUTS = {
    layout.name: layout
    for layout in (
        SINGLE,
        PLAIN_LOSS,
        DOCUMENTS,
        _layout("TP2", tensor=2),
        _layout("PP2", pipeline=2),
        _layout("CP2", context=2),
        _layout("TP2xPP2", tensor=2, pipeline=2),
        _layout("EP2", expert=2),
        _layout("EP2xTP2", expert=2, tensor=2),
        _layout("TP2-ETP1", tensor=2, expert=2, complete_experts=True),
        _layout("TP2xPP2-ETP1", tensor=2, pipeline=2, expert=2, complete_experts=True),
        _layout("EP2xTP2-ETP1", tensor=2, expert=2, complete_experts=True, replicas=2),
    )
}
"""By name; under tensor parallelism with sequence parallelism.

With ETP1 it is the tensor-parallel processes that divide the experts of a layer among them.
"""
DENSE = ("documents", "TP1", "TP2", "PP2", "CP2", "TP2xPP2")
EXPERTS = ("documents", "plain", "TP1", "TP2", "PP2", "TP2xPP2", "EP2", "EP2xTP2")
COMPLETE_EXPERTS = (
    *("documents", "plain", "TP1", "PP2", "CP2", "EP2"),
    *("TP2-ETP1", "TP2xPP2-ETP1", "EP2xTP2-ETP1"),
)
"""Of experts with biases, which Megatron Core cannot divide."""
