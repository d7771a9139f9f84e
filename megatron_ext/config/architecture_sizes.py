"""Sizes, numbers of weights and FLOPs of a model, derived from its fields."""

from pydantic.dataclasses import dataclass

from galen.recipe import STRICT
from megatron_ext.config.activations import ACTIVATIONS
from megatron_ext.config.architecture_fields import ArchitectureFields

VOCAB_MULTIPLE = 128  # Megatron-LM's --make-vocab-size-divisible-by


@dataclass(kw_only=True, frozen=True, config=STRICT)
class ArchitectureSizes(ArchitectureFields):
    """Derived attributes that need nothing but the fields."""

    def padded_vocab_size(self, tensor_parallel: int = 1) -> int:
        """Return the rows of the embedding under `tensor_parallel` ranks.

        They are a multiple of 128 x ranks, as in Megatron-LM.
        """
        multiple = VOCAB_MULTIPLE * tensor_parallel
        return -(-self.vocab_size // multiple) * multiple

    @property
    def query_size(self) -> int:
        """Columns of all query heads."""
        return self.num_attention_heads * self.kv_channels

    @property
    def key_value_size(self) -> int:
        """Columns of all key heads, and as many of all value heads."""
        return self.num_query_groups * self.kv_channels

    @property
    def num_fusible_rope_layers(self) -> int:
        """Layers whose rotary positions Transformer Engine's fused kernel computes.

        It does not multiply by the attention factor of YaRN or LongRoPE; the core then uses its
        own functions, but for packed documents calls the kernel and leaves the factor out (0.16.1
        and 0.19.2). Layers with a rotary base of their own have no scaling.
        """
        scaling = self.yarn or self.longrope
        if scaling is None or not scaling.scales_attention:
            return self.num_layers
        if self.local_rotary_base is None:
            return 0
        return sum(self.window_attn_skip_freq or ())

    @property
    def core_rotary_base(self) -> float:
        """The rotary base as Megatron writes it: an integer, unless it has a fraction."""
        return int(self.rotary_base) if self.rotary_base.is_integer() else self.rotary_base

    @property
    def num_window_layers(self) -> int:
        """Layers in which a token attends to `window_size` tokens at most."""
        if self.window_size is None:
            return 0
        return sum(self.window_attn_skip_freq or [1] * self.num_layers)

    @property
    def mlp_input_projections(self) -> int:
        """Matrices of an MLP that take hidden states: up, and the gate if there is one."""
        return 2 if self.gated_mlp else 1

    @property
    def mlp_num_projections(self) -> int:
        """Matrices of an MLP."""
        return self.mlp_input_projections + 1

    @property
    def norms_before(self) -> bool:
        """Whether attention and MLP have a norm on their input."""
        return self.norm_placement in ("before", "both")

    @property
    def norms_after(self) -> bool:
        """Whether attention and MLP have a norm on their output."""
        return self.norm_placement in ("after", "both")

    @property
    def num_norms_per_layer(self) -> int:
        """Norms over hidden states in a layer; those of query and key heads not counted."""
        return 2 * (self.norms_before + self.norms_after)

    @property
    def is_moe(self) -> bool:
        """Whether the MLPs consist of experts."""
        return self.num_moe_experts is not None

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert's matrices; 0 in a dense model."""
        return self.mlp_num_projections * self.hidden_size * (self.moe_ffn_hidden_size or 0)

    @property
    def layer_dense_matrix_parameters(self) -> int:
        """Weights of a layer's matrices that all tokens pass: attention and MLP or shared expert.

        Tensor parallelism divides them, expert parallelism does not.
        """
        attention = self.hidden_size * (2 * self.query_size + 2 * self.key_value_size)
        width = self.ffn_hidden_size
        if self.is_moe:
            width = self.moe_shared_expert_intermediate_size or 0
        return attention + self.mlp_num_projections * self.hidden_size * width

    @property
    def layer_expert_matrix_parameters(self) -> int:
        """Weights of the matrices of a layer's experts; 0 in a dense model.

        Expert parallelism and expert tensor parallelism divide them.
        """
        return (self.num_moe_experts or 0) * self.expert_parameters

    @property
    def layer_matrix_parameters(self) -> int:
        """Weights of a layer's matrices, which parallelism divides; the router is not counted."""
        return self.layer_dense_matrix_parameters + self.layer_expert_matrix_parameters

    @property
    def layer_active_matrix_parameters(self) -> int:
        """Weights of a layer's matrices that one token passes; the router is not counted."""
        experts = self.moe_router_topk * self.expert_parameters
        return self.layer_dense_matrix_parameters + experts

    @property
    def layer_router_parameters(self) -> int:
        """Weights of a layer's router and of the shared expert's gate, which every rank holds."""
        experts = self.num_moe_experts or 0
        biases = experts * self.add_bias_linear
        return (experts + self.moe_shared_expert_gate) * self.hidden_size + biases

    @property
    def layer_sharded_vector_parameters(self) -> int:
        """Biases, sinks and full-width norms of a layer that tensor parallelism divides."""
        total = 0
        if self.full_width_qk_norm:
            total += self.query_size + self.key_value_size
        if self.add_qkv_bias:
            total += self.query_size + 2 * self.key_value_size
        if self.add_bias_linear and not self.is_moe:
            total += self.mlp_input_projections * self.ffn_hidden_size
        if self.softmax_type == "learnable":
            total += self.num_attention_heads
        return total

    @property
    def layer_output_bias_parameters(self) -> int:
        """Biases of the outputs of attention and MLP, which every tensor-parallel rank holds."""
        if not self.add_bias_linear:
            return 0
        return self.hidden_size if self.is_moe else 2 * self.hidden_size

    @property
    def expert_bias_parameters(self) -> int:
        """Biases of one expert, which expert parallelism divides; 0 in a dense model."""
        if not (self.add_bias_linear and self.is_moe):
            return 0
        return self.mlp_input_projections * (self.moe_ffn_hidden_size or 0) + self.hidden_size

    @property
    def layer_norm_parameters(self) -> int:
        """Weights of a layer's norms that every tensor-parallel rank holds."""
        head_norms = 2 * self.kv_channels if self.qk_layernorm else 0
        return self.num_norms_per_layer * self.hidden_size + head_norms

    @property
    def layer_activation_parameters(self) -> int:
        """Learned parameters of a layer's activation, which every tensor-parallel rank holds."""
        return ACTIVATIONS[self.activation].parameters

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once, padding not counted."""
        return self._count_parameters(self.layer_matrix_parameters, self.num_moe_experts or 0)

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token passes: `parameters` without the experts not chosen."""
        return self._count_parameters(self.layer_active_matrix_parameters, self.moe_router_topk)

    def _count_parameters(self, layer_matrices: int, experts: int) -> int:
        layer = layer_matrices + self.layer_sharded_vector_parameters
        layer += self.layer_output_bias_parameters
        layer += experts * self.expert_bias_parameters
        layer += self.layer_norm_parameters + self.layer_router_parameters
        layer += self.layer_activation_parameters
        embeddings = self.vocab_size * self.hidden_size
        if not self.share_embeddings_and_output_weights:
            embeddings *= 2
        return self.num_layers * layer + embeddings + self.hidden_size

    def attention_flops_per_token(self, seq_length: float) -> float:
        """Return the mean FLOPs of a layer's causal attention for one token, forward and backward.

        12 x heads x head size x the tokens that a token attends to (Narayanan et al. 2021, arXiv
        2104.04473): half of the sequence s on average, and w - w^2 / 2s with a window of w, as the
        first w tokens attend to half as many.
        """
        attended = seq_length / 2
        window = self.window_size
        if window is not None and seq_length > window:
            in_window = window - window**2 / (2 * seq_length)
            attended += self.num_window_layers / self.num_layers * (in_window - attended)
        return 12 * self.query_size * attended

    def flops_per_token(self, seq_length: float) -> float:
        """Return model FLOPs for one token, forward and backward, attention included.

        6 per active weight of the matrix products (2 forward, 4 backward; Kaplan et al. 2020, arXiv
        2001.08361) plus attention. The embedding look-up is no product; the output layer is.
        """
        multiplied = self.active_parameters
        if not self.share_embeddings_and_output_weights:
            multiplied -= self.vocab_size * self.hidden_size
        attention = self.num_layers * self.attention_flops_per_token(seq_length)
        return 6.0 * multiplied + attention
