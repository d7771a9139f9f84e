"""The architecture of a Llama-like model, independent of Hugging Face and of Megatron's options.

A checkpoint carries it as `architecture.json`; recipes never repeat it.
"""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from galen import json_file, shipped
from galen.atomic import write_text
from galen.errors import DataError, UsageError, one_line
from galen.recipe import STRICT
from megatron_ext.config.rope import Yarn

if TYPE_CHECKING:
    from megatron.core.transformer import TransformerConfig

ARCHITECTURE_FILE = "architecture.json"
VOCAB_MULTIPLE = 128  # Megatron-LM's --make-vocab-size-divisible-by


_MAX_SIZE = 2**31 - 1
_MAX_LAYERS = 10_000
_MAX_EXPERTS = 10_000
"""More than any model has; a damaged number would fill the memory with tensor names."""


ActivationName = Literal["silu", "relu2", "gelu_pytorch_tanh", "quick_gelu", "xielu"]
NormPlacement = Literal["before", "after", "both"]
SoftmaxType = Literal["vanilla", "learnable"]


class Activation(NamedTuple):
    """An activation function of the MLP."""

    function: str
    """Dotted name of it in PyTorch, Megatron Core or Galen: a function, or a module's class."""
    fused_function: str | None
    """Name of the function for which Megatron Core fuses it with the gate, None if it does not."""
    kernel: str | None = None
    """Name of an equal function in a single kernel, which runs unless fused; None if there is none.
    """
    parameters: int = 0
    """Learned parameters of each MLP's own module, which every tensor-parallel rank holds."""


ACTIVATIONS: dict[ActivationName, Activation] = {
    "silu": Activation("torch.nn.functional.silu", "torch.nn.functional.silu"),
    "relu2": Activation("megatron.core.activations.squared_relu", None),
    # the core's fused GeGLU is this approximation, unlike its unfused one (0.16.1 and 0.19.2)
    "gelu_pytorch_tanh": Activation(
        "megatron.core.activations.fast_gelu",
        "torch.nn.functional.gelu",
        "megatron_ext.model.activations.gelu_tanh",
    ),
    "quick_gelu": Activation(
        "megatron.core.activations.quick_gelu",
        "megatron.core.fusions.fused_bias_geglu.quick_gelu",
    ),
    "xielu": Activation("megatron_ext.model.activations.Xielu", None, parameters=2),
}
"""By the name that Hugging Face's `hidden_act` has for it."""


@dataclass(kw_only=True, frozen=True, config=STRICT)
class Architecture:
    """A decoder with RMSNorm, rotary positions and grouped-query attention.

    The names are Megatron's. A field with a default is a property, whose default is Llama's. What
    a property changes (shapes, FLOPs, activations, Megatron's arguments) is derived here, once: the
    planner and the interop formats read the derived attributes. An interop format refuses a model
    with a property that it does not declare (`conversion/interop_target.py`).
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
        names = ("rope_scaling_factor", "yarn", "seq_len_interpolation_factor")
        scalings = [name for name in names if getattr(self, name) is not None]
        if len(scalings) > 1:
            raise ValueError(f"{' and '.join(scalings)} exclude each other")
        if self.llama_4_scaling_beta is not None and self.yarn is None:
            raise ValueError("llama_4_scaling_beta needs yarn")
        if self.add_bias_linear and self.moe_shared_expert_intermediate_size is not None:
            raise ValueError("Megatron Core has no shared expert with biases (add_bias_linear)")
        if self.add_bias_linear and not self.add_qkv_bias:
            raise ValueError("add_bias_linear includes query, key and value: add_qkv_bias is true")
        if self.layer_activation_parameters and (self.gated_mlp or self.is_moe):
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
    def fusible_rope(self) -> bool:
        """Whether Transformer Engine's fused kernel computes the rotary positions.

        It does not multiply by YaRN's attention factor; the core then uses its own functions, but
        for packed documents calls the kernel and leaves the factor out (0.16.1 and 0.19.2).
        """
        return self.yarn is None or not self.yarn.scales_attention

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
    def layer_bias_parameters(self) -> int:
        """Biases, sinks and full-width norms of a layer, which tensor parallelism divides."""
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
        layer = layer_matrices + self.layer_bias_parameters + self.layer_output_bias_parameters
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

    @property
    def max_seq_length(self) -> int | None:
        """Longest sequence for which Megatron's model is exact; None for any."""
        if not self.llama_4_scaling_beta or self.yarn is None:
            return None
        return self.yarn.original_max_position_embeddings

    def check_seq_length(self, seq_length: int) -> None:
        """Check that Megatron's model is exact for sequences of this length.

        Raises:
            UsageError: it is not.
        """
        if self.max_seq_length is not None and seq_length > self.max_seq_length:
            raise UsageError(
                f"sequences of {seq_length} tokens are not supported for this {self.family} model:"
                f" from position {self.max_seq_length} on it scales queries"
                f" (llama_4_scaling_beta = {self.llama_4_scaling_beta}), which Megatron Core does"
                f" not; use at most {self.max_seq_length} (data.seq_length)"
            )

    def without_idle_window(self, seq_length: int) -> "Architecture":
        """Return the same model without a sliding window that no sequence exceeds.

        Attention without a window has faster kernels, and Transformer Engine's context parallelism
        takes no window. The layers that had it keep their own rotary base.
        """
        if self.window_size is None or seq_length > self.window_size:
            return self
        layers = None if self.local_rotary_base is None else self.window_attn_skip_freq
        return dataclasses.replace(self, window_size=None, window_attn_skip_freq=layers)

    def core_arguments(self) -> dict[str, Any]:
        """Return this model in the names of Megatron Core's TransformerConfig, as plain data.

        Training, Megatron-Bridge, NeMo and Megatron-LM take their arguments from here. The
        activation is a dotted name.
        """
        arguments = {
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "ffn_hidden_size": self.ffn_hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_query_groups": self.num_query_groups,
            "kv_channels": self.kv_channels,
            "layernorm_epsilon": self.layernorm_epsilon,
            "normalization": "RMSNorm",
            "layernorm_zero_centered_gamma": self.layernorm_zero_centered_gamma,
            "softmax_scale": self.softmax_scale,
            "gated_linear_unit": self.gated_mlp,
            "activation_func": ACTIVATIONS[self.activation].function,
            "glu_linear_offset": self.glu_linear_offset,
            "activation_func_clamp_value": self.activation_func_clamp_value,
            "add_bias_linear": self.add_bias_linear,
            "add_qkv_bias": self.add_qkv_bias,
            "softmax_type": self.softmax_type,
            "qk_layernorm": self.qk_layernorm,
            "window_size": None if self.window_size is None else (self.window_size - 1, 0),
            "window_attn_skip_freq": (
                None if self.window_attn_skip_freq is None else list(self.window_attn_skip_freq)
            ),
            # the core's default of 0.1 would inflate the loss of a continued model
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
        }
        if self.is_moe:
            arguments |= {
                "num_moe_experts": self.num_moe_experts,
                "moe_router_topk": self.moe_router_topk,
                "moe_ffn_hidden_size": self.moe_ffn_hidden_size,
                "moe_router_pre_softmax": self.moe_router_pre_softmax,
                "moe_shared_expert_intermediate_size": self.moe_shared_expert_intermediate_size,
                "moe_shared_expert_gate": self.moe_shared_expert_gate,
            }
        return arguments

    def transformer_config(self, **options: Any) -> "TransformerConfig":
        """Return Megatron's configuration of this model.

        `options` are further TransformerConfig fields.
        """
        from megatron.core.transformer import TransformerConfig

        arguments = self.core_arguments()
        fused = options.pop("bias_activation_fusion", False)
        fused_function = self._fused_function(options.get("moe_grouped_gemm", False))
        options["bias_activation_fusion"] = fused and fused_function is not None
        kernel = ACTIVATIONS[self.activation].kernel
        if fused and fused_function is not None:
            arguments["activation_func"] = fused_function
        elif kernel is not None:
            arguments["activation_func"] = kernel
        module, _, name = arguments["activation_func"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        # Megatron's functions are compiled, which the CPU platform cannot do
        arguments["activation_func"] = function if fused else inspect.unwrap(function)
        if not self.fusible_rope:
            options["apply_rope_fusion"] = False
        config = TransformerConfig(**arguments, **options)
        # the core then builds a module for each MLP; it accepts the option only for functions of
        # Transformer Engine
        config.use_te_activation_func = isinstance(function, type)
        if self.yarn is not None:
            for name, value in self.yarn.core_attributes().items():
                setattr(config, name, value)
        return config

    def _fused_function(self, moe_grouped_gemm: bool) -> str | None:
        """Return the function for which the core fuses activation and gate, None for none."""
        if not self.gated_mlp:
            return None
        if self.activation == "quick_gelu" and not moe_grouped_gemm:
            return None  # the core's kernel for other MLPs adds the bias after it clamps
        return ACTIVATIONS[self.activation].fused_function

    def to_json(self) -> dict[str, Any]:
        """Return the fields as `architecture.json` has them.

        Properties added after the first format are left out at their default, so that an older
        Galen still reads the file.
        """
        defaults = properties()
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in _LATER_PROPERTIES or value != defaults[name]
        }

    def write(self, folder: str | Path) -> None:
        """Write `architecture.json` into `folder`."""
        write_text(Path(folder) / ARCHITECTURE_FILE, json.dumps(self.to_json(), indent=1) + "\n")


def properties() -> dict[str, Any]:
    """Return the properties of a model by the fields of Architecture, with Llama's values."""
    parameters = inspect.signature(Architecture).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


_LATER_PROPERTIES = frozenset(
    {
        "activation",
        "activation_func_clamp_value",
        "add_bias_linear",
        "full_width_qk_norm",
        "gated_mlp",
        "glu_linear_offset",
        "local_rotary_base",
        "layernorm_zero_centered_gamma",
        "llama_4_scaling_beta",
        "moe_ffn_hidden_size",
        "moe_router_pre_softmax",
        "moe_router_topk",
        "moe_shared_expert_gate",
        "moe_shared_expert_intermediate_size",
        "norm_placement",
        "num_moe_experts",
        "scale_embeddings",
        "seq_len_interpolation_factor",
        "softmax_scale",
        "softmax_type",
        "window_attn_skip_freq",
        "yarn",
    }
)


def read_architecture(path: str | Path) -> Architecture:
    """Read an architecture.

    Args:
        path: a JSON file, or the folder of a checkpoint's iteration.

    Raises:
        DataError: the file is missing or does not describe a model.
    """
    is_file = str(path).endswith(".json")
    file = shipped.resolve(path) if is_file else Path(path) / ARCHITECTURE_FILE
    if not file.exists():
        raise DataError(
            f"cannot read {file}: it does not exist; `galen import` writes it beside the weights"
        )
    fields = json_file.read_object(file)
    try:
        return TypeAdapter(Architecture).validate_python(fields)
    except ValueError as error:
        raise DataError(f"{file} does not describe a model: {one_line(error)}") from None
