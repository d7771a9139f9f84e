"""The section of a recipe that concerns mixtures of experts."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class Moe:
    """Training of a mixture of experts: losses of the router, and capacity."""

    moe_router_load_balancing_type: Literal["seq_aux_loss", "aux_loss", "global_aux_loss"] = (
        "seq_aux_loss"
    )
    """Scope of the auxiliary loss that balances the experts.

    Each sequence (seq_aux_loss), each micro-batch (aux_loss), or the global batch as far as it has
    been read (global_aux_loss). Only the first does not depend on the layout.
    """
    moe_aux_loss_coeff: float = Field(default=1e-3, ge=0, allow_inf_nan=False)
    """Coefficient of the auxiliary loss of each layer; 0 disables it."""
    moe_z_loss_coeff: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Coefficient of the router's z-loss, which keeps its logits small, for example 1e-3."""
    moe_expert_capacity_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Drop the tokens of an expert beyond this multiple of its fair share; null drops none.

    Counted over the tokens of one process, so that the result depends on the layout.
    """
    moe_pad_expert_input_to_capacity: bool = False
    """Pad the tokens of each expert to its capacity, for equal GEMMs."""
    moe_token_drop_policy: Literal["probs", "position"] = "probs"
    """Which tokens to drop: those of the lowest probability, or the last."""

    def __post_init__(self) -> None:
        """Check that no option is without effect."""
        if self.moe_expert_capacity_factor is not None:
            return
        if self.moe_pad_expert_input_to_capacity:
            raise ValueError(
                "moe.moe_pad_expert_input_to_capacity needs moe.moe_expert_capacity_factor"
            )
        if self.moe_token_drop_policy != "probs":
            raise ValueError("moe.moe_token_drop_policy needs moe.moe_expert_capacity_factor")
