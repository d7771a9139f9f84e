"""The fields of an architecture, and what must hold between them."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT
from megatron_ext.config.activations import ACTIVATIONS, ActivationName
from megatron_ext.config.rope import LongRope, Yarn

_MAX_SIZE = 2**31 - 1
_MAX_LAYERS = 10_000
_MAX_EXPERTS = 10_000
_MAX_EXPERTS_OF_ALL_LAYERS = 200_000
"""More than any model has; a damaged number would fill the memory with tensor names."""

NormPlacement = Literal["before", "after", "both"]
SoftmaxType = Literal["vanilla", "learnable"]


@dataclass(kw_only=True, frozen=True, config=STRICT)
class ArchitectureFields:
    """The fields that describe a model, in Megatron's names.

    A field with a default is a property, whose default is Llama's.
    """

    family: str
    """Model family in checkpoints_convert, for example llama."""
    num_layers: int = Field(gt=0, le=_MAX_LAYERS)
    hidden_size: int = Field(gt=0, le=_MAX_SIZE)
    ffn_hidden_size: int = Field(gt=0, le=_MAX_SIZE)
    num_attention_heads: int = Field(gt=0, le=_MAX_SIZE)
    num_query_groups: int = Field(gt=0, le=_MAX_SIZE)
    """Key/value heads."""
    kv_channels: int = Field(gt=0, le=_MAX_SIZE)
    """Size of one head."""
    vocab_size: int = Field(gt=0, le=_MAX_SIZE)
    """Rows of the embedding that belong to a token, padding not counted."""
    max_position_embeddings: int = Field(gt=0, le=_MAX_SIZE)
    rotary_base: float = Field(gt=0, allow_inf_nan=False)
    rope_scaling_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Factor of Llama 3's rotary scaling, None for none."""
    yarn: Yarn | None = None
    """YaRN rotary scaling, None for none."""
    seq_len_interpolation_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Factor of linear rotary scaling, by which positions are divided; None for none."""
    longrope: LongRope | None = None
    """LongRoPE rotary scaling (Phi-4-mini), None for none; limits `max_seq_length`."""
    rotary_percent: float = Field(default=1.0, gt=0, le=1)
    """Fraction of each head that is rotated."""
    llama_4_scaling_beta: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Scaling of queries by their position, 1 + beta ln(1 + position // original) (Ministral 3).

    `original` is YaRN's original_max_position_embeddings: before it the factor is 1. Megatron's
    model has no such factor (`max_seq_length`). None for none.
    """
    layernorm_epsilon: float = Field(ge=0, lt=1)
    share_embeddings_and_output_weights: bool
    add_qkv_bias: bool = False
    """Whether query, key and value have a bias (Qwen2)."""
    qk_layernorm: bool = False
    """Whether query and key pass an RMSNorm over each head (Qwen3)."""
    full_width_qk_norm: bool = False
    """Whether all query heads together pass one RMSNorm, and all key heads another (OLMo 2)."""
    window_size: int | None = Field(default=None, gt=0, le=_MAX_SIZE)
    """Tokens that a token attends to, itself included (Mistral's sliding window); None for all."""
    window_attn_skip_freq: tuple[Literal[0, 1], ...] | None = None
    """By layer, 1 if it has the window (OLMo 3) and 0 if not; None for a window in all layers."""
    local_rotary_base: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Rotary base of the layers with a window, which then have no scaling.

    None if they share the rotary positions of the others.
    """
    activation: ActivationName = "silu"
    """Activation function of the MLP."""
    gated_mlp: bool = True
    """Whether the activation of one projection (the gate) multiplies another (up)."""
    norm_placement: NormPlacement = "before"
    """Whether attention and MLP have an RMSNorm before (on their input), after (on their output).

    After is before the residual addition, as in OLMo 2. Both: as in Gemma 3.
    """
    layernorm_zero_centered_gamma: bool = False
    """Whether the norms multiply by 1 + weight (Gemma), those of query and key heads included."""
    scale_embeddings: bool = False
    """Whether the embeddings are multiplied by sqrt(hidden_size) in their precision (Gemma)."""
    softmax_scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Factor of the attention scores; None for 1 / sqrt(kv_channels)."""
    add_bias_linear: bool = False
    """Whether all linear layers but the output layer have a bias (gpt-oss).

    These are query, key, value and output of attention, the MLP or the experts, and the router.
    """
    softmax_type: SoftmaxType = "vanilla"
    """Softmax of attention; `learnable` has a learned logit per head in its denominator.

    Such an attention sink (gpt-oss) takes attention away from all tokens.
    """
    glu_linear_offset: float = Field(default=0.0, allow_inf_nan=False)
    """Added to the up projection before the gate multiplies it (1 in gpt-oss)."""
    activation_func_clamp_value: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest gate, and largest magnitude of the up projection (7 in gpt-oss); None for any."""

    num_moe_experts: int | None = Field(default=None, gt=1, le=_MAX_EXPERTS)
    """Experts of each layer's MLP; None for a dense MLP."""
    moe_router_topk: int = Field(default=2, gt=0, le=_MAX_EXPERTS)
    """Experts per token."""
    moe_ffn_hidden_size: int | None = Field(default=None, gt=0, le=_MAX_SIZE)
    """Width of one expert."""
    moe_router_pre_softmax: bool = False
    """Whether the router's softmax is over all experts (OLMoE), or over the chosen ones (Mixtral).

    Over the chosen ones is the same as over all, normalized to a sum of 1 over the chosen ones
    (Qwen3's `norm_topk_prob: true`).
    """
    moe_shared_expert_intermediate_size: int | None = Field(default=None, gt=0, le=_MAX_SIZE)
    """Width of the expert that all tokens pass (Qwen2-MoE); None for none."""
    moe_shared_expert_gate: bool = False
    """Whether a sigmoid gate multiplies the output of the shared expert."""

    def __post_init__(self) -> None:
        """Check what concerns several fields."""
        if self.qk_layernorm and self.full_width_qk_norm:
            raise ValueError("qk_layernorm and full_width_qk_norm exclude each other")
        self._check_window_layers()
        self._check_experts()
        self._check_rope()
        self._check_biases()
        self._check_activation()

    def _check_rope(self) -> None:
        """Check that at most one scaling of the rotary positions is set."""
        names = ("rope_scaling_factor", "yarn", "seq_len_interpolation_factor", "longrope")
        scalings = [name for name in names if getattr(self, name) is not None]
        if len(scalings) > 1:
            raise ValueError(f"{' and '.join(scalings)} exclude each other")
        if self.llama_4_scaling_beta is not None and self.yarn is None:
            raise ValueError("llama_4_scaling_beta needs yarn")
        if self.longrope is not None:
            self._check_longrope(self.longrope)

    def _check_biases(self) -> None:
        if not self.add_bias_linear:
            return
        if self.moe_shared_expert_intermediate_size is not None:
            raise ValueError("Megatron Core has no shared expert with biases (add_bias_linear)")
        if not self.add_qkv_bias:
            raise ValueError("add_bias_linear includes query, key and value: add_qkv_bias is true")

    def _check_activation(self) -> None:
        has_parameters = ACTIVATIONS[self.activation].parameters > 0
        if has_parameters and (self.gated_mlp or self.num_moe_experts is not None):
            raise ValueError(
                f"activation: {self.activation} has learned parameters: it needs an MLP without a"
                " gate and without experts"
            )
        changes_gate = self.glu_linear_offset != 0 or self.activation_func_clamp_value is not None
        if changes_gate and not (self.gated_mlp and self.activation == "quick_gelu"):
            raise ValueError(
                "glu_linear_offset and activation_func_clamp_value need gated_mlp and activation:"
                " quick_gelu, as in Megatron Core"
            )

    def _check_longrope(self, longrope: LongRope) -> None:
        """Check the number of factors, one for each rotary frequency."""
        size = int(self.kv_channels * self.rotary_percent) // 2
        for name in ("short_factor", "long_factor"):
            if len(getattr(longrope, name)) != size:
                raise ValueError(f"longrope: {name} must list {size} factors")

    def _check_window_layers(self) -> None:
        """Check the layers with a window, and their rotary base."""
        layers = self.window_attn_skip_freq
        if layers is None:
            if self.local_rotary_base is not None:
                raise ValueError("local_rotary_base needs window_attn_skip_freq")
            return
        if len(layers) != self.num_layers:
            raise ValueError(
                f"window_attn_skip_freq lists {len(layers)} layers, num_layers is {self.num_layers}"
            )
        if self.window_size is None and self.local_rotary_base is None:
            raise ValueError("window_attn_skip_freq needs window_size or local_rotary_base")

    def _check_experts(self) -> None:
        if self.num_moe_experts is None:
            fields = ["moe_ffn_hidden_size", "moe_shared_expert_intermediate_size"]
            for name in [*fields, "moe_router_pre_softmax", "moe_shared_expert_gate"]:
                if getattr(self, name):
                    raise ValueError(f"{name} needs num_moe_experts")
            return
        if self.num_layers * self.num_moe_experts > _MAX_EXPERTS_OF_ALL_LAYERS:
            raise ValueError(
                f"num_layers x num_moe_experts is larger than {_MAX_EXPERTS_OF_ALL_LAYERS:,}"
            )
        if self.moe_ffn_hidden_size is None:
            raise ValueError("num_moe_experts needs moe_ffn_hidden_size")
        if self.moe_router_topk > self.num_moe_experts:
            raise ValueError("moe_router_topk is larger than num_moe_experts")
        if self.moe_router_topk == 1 and not self.moe_router_pre_softmax:
            raise ValueError(
                "moe_router_topk = 1 needs moe_router_pre_softmax, as in Megatron Core"
            )
        if self.moe_shared_expert_gate and self.moe_shared_expert_intermediate_size is None:
            raise ValueError("moe_shared_expert_gate needs moe_shared_expert_intermediate_size")
