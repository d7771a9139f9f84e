"""The router of a mixture of experts: its auxiliary losses, and the load of the experts."""

from typing import Any, ClassVar

import torch
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler, z_loss_func
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor


class BalancedRouter(TopKRouter):
    """Megatron's router, with auxiliary losses that no layout changes.

    The gradients of a step are summed over its tokens and divided by the tokens in the loss. So
    that an auxiliary loss enters with its coefficient, that of a micro-batch is multiplied by the
    tokens over which it is a mean, on all ranks together, and by `loss_fraction`. Megatron Core
    0.16.1 multiplies by the tokens of one rank (and divides `seq_aux_loss` by the micro-batch size
    once more), which makes the coefficient smaller under sequence or context parallelism. In 0.19,
    too, that of `global_aux_loss` is divided by the replicas, and masked tokens make all larger.
    """

    loss_fraction: ClassVar[float] = 1.0
    """Fraction of the tokens of the global batch that are in the loss."""

    packed_length: ClassVar[int | None] = None
    """Tokens in each sequence of a micro-batch that is packed into one row; None: not packed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.statistics: Tensor | None = None
        """Sums over the tokens of this rank since the last `take_statistics`, of
        `num_statistics` values: assignments to each expert, then auxiliary loss and z-loss, each
        times the tokens."""

    @property
    def num_statistics(self) -> int:
        """Length of `statistics`."""
        return self.num_experts + 2  # type: ignore[no-any-return]

    def take_statistics(self, device: torch.device) -> Tensor:
        """Return the statistics [num_experts + 2] and reset them."""
        taken = self.statistics
        self.statistics = None
        if taken is None:
            return torch.zeros(self.num_statistics, dtype=torch.float64, device=device)
        return taken

    def _record(self, first: int, values: Tensor) -> None:
        """Add `values` to the statistics from the index `first` on."""
        if self.statistics is None:
            self.statistics = torch.zeros(
                self.num_statistics, dtype=torch.float64, device=values.device
            )
        self.statistics[first : first + values.numel()] += values.detach()

    def routing(self, logits: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the map of tokens to experts, both [tokens, experts].

        The load is recorded, of a recomputed forward pass only once.
        """
        probabilities, routing_map = super().routing(logits, *arguments, **options)
        if self.training and torch.is_grad_enabled():
            self._record(0, routing_map.sum(dim=0))
        return probabilities, routing_map

    def _apply_seq_aux_loss(
        self, probs: Tensor, scores_for_aux_loss: Tensor, routing_map: Tensor, *rows: Any, **_: Any
    ) -> Tensor:
        """Add the gradient of the mean auxiliary loss of the sequences.

        Megatron's takes the row of a packed micro-batch for one sequence; so it remains under
        context parallelism, where a process has pieces of all of them.

        Args:
            probs: pass on the gradient, [tokens of this rank, experts].
            scores_for_aux_loss: of all experts, the same.
            routing_map: of the chosen experts, the same.
            rows: their length and number.
        """
        length = self.packed_length
        if length is None or self.cp_group.size() > 1:
            return super()._apply_seq_aux_loss(  # type: ignore[no-any-return]
                probs, scores_for_aux_loss, routing_map, *rows
            )
        coefficient = self.get_aux_loss_coeff("seq_aux_loss")
        if not coefficient:
            return probs
        tokens = routing_map.shape[0]
        sequences = tokens * self.tp_cp_group.size() // length
        positions = torch.arange(tokens, device=probs.device)
        positions += tokens * self.tp_cp_group.rank()
        numbers = torch.arange(sequences, device=probs.device).unsqueeze(1)
        members = (positions // length == numbers).to(scores_for_aux_loss.dtype)
        counts = members @ routing_map.to(members.dtype)
        torch.distributed.all_reduce(counts, group=self.tp_cp_group)
        products = (counts * (members @ scores_for_aux_loss)).sum()
        scale = self.num_experts * coefficient / (self.topk * length * length * sequences)
        return self.attach_and_log_load_balancing_loss(
            probs, coefficient, products * scale, "seq_load_balancing_loss", self.tp_cp_group
        )

    def attach_and_log_load_balancing_loss(
        self,
        activation: Tensor,
        aux_loss_coeff: float,
        aux_loss: Tensor,
        aux_loss_name: str,
        reduce_group: torch.distributed.ProcessGroup,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Add the gradient of this rank's part of a micro-batch's auxiliary loss.

        Args:
            activation: that passes on the gradient, [tokens of this rank, experts].
            aux_loss_coeff: contained in the loss.
            aux_loss: the part of this rank; the sum over the group is a mean over the tokens.
            aux_loss_name: unused.
            reduce_group: tensor- and context-parallel ranks; of global_aux_loss, all replicas too.
        """
        tokens = activation.shape[0] * reduce_group.size()
        self._record(self.num_experts, tokens * aux_loss / aux_loss_coeff)
        added: Tensor = MoEAuxLossAutoScaler.apply(
            activation, aux_loss * (tokens * self.loss_fraction)
        )
        return added

    def apply_z_loss(self, logits: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Add the gradient of the z-loss, the mean square of the logits' log-sum-exp.

        Args:
            logits: [tokens of this rank, experts].
            padding_mask: unused; no caller passes one.
        """
        coefficient = self.config.moe_z_loss_coeff
        if coefficient is None or not (self.training and torch.is_grad_enabled()):
            return logits
        tokens = logits.shape[0]
        loss = z_loss_func(logits, 1.0) * tokens
        self._record(self.num_experts + 1, loss)
        added: Tensor = MoEAuxLossAutoScaler.apply(
            logits, loss * (coefficient * self.loss_fraction)
        )
        return added

    def _apply_expert_bias(self, *_: Any, **__: Any) -> None:
        """Do nothing: no model has such a bias, and Megatron's function is compiled."""
