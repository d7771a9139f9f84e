"""Which modules a transformer layer is made of, by platform."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.enums import AttnBackend
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor

from megatron_ext.config.architecture import Architecture
from megatron_ext.hardware.platforms import Platform
from megatron_ext.model.attention import FusedCausalAttention
from megatron_ext.model.expert_linear import ExpertRowParallelLinear
from megatron_ext.model.router import BalancedRouter
from megatron_ext.model.self_attention import DecoderAttention


class RMSNorm(torch.nn.RMSNorm):
    """PyTorch's RMSNorm for sequence parallelism.

    Its weight is marked, so that Megatron sums its gradient over the ranks.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class ZeroCenteredRMSNorm(RMSNorm):
    """RMSNorm that multiplies by 1 + weight, computed in float32 as in Gemma."""

    def reset_parameters(self) -> None:
        """Let the norm multiply by 1."""
        torch.nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized `x`, in its precision."""
        weight = 1.0 + self.weight.float()
        normalized = torch.nn.functional.rms_norm(x.float(), weight.shape, weight, self.eps)
        return normalized.type_as(x)


class NormAfterLayer(TransformerLayer):
    """A layer that normalizes the outputs of attention and MLP before the residual additions."""

    self_attn_bda: Any
    mlp_bda: Any

    def __init__(self, config: TransformerConfig, *, norm: type, **options: Any) -> None:
        super().__init__(config=config, **options)
        arguments = {"hidden_size": config.hidden_size, "eps": config.layernorm_epsilon}
        self.post_attention_layernorm = norm(config=config, **arguments)
        self.post_mlp_layernorm = norm(config=config, **arguments)
        self.self_attn_bda = functools.partial(
            _normalize_and_add, self.post_attention_layernorm, self.self_attn_bda
        )
        # Megatron's records gradients in evaluation too, so that the norms' inputs would be kept
        self.bias_dropout_add_exec_handler = contextlib.nullcontext
        self.mlp_bda = functools.partial(_normalize_and_add, self.post_mlp_layernorm, self.mlp_bda)


def _normalize_and_add(
    norm: torch.nn.Module, bias_dropout_add: Callable[..., Any], training: bool, fused: bool
) -> Callable[..., Tensor]:
    """Return Megatron's residual addition with a norm on the added tensor."""

    def add(output_with_bias: tuple[Tensor, None], residual: Tensor, dropout: float) -> Tensor:
        output, bias = output_with_bias
        assert bias is None, "no model has a bias on the output of attention or MLP"
        added: Tensor = bias_dropout_add(training, fused)((norm(output), None), residual, dropout)
        return added

    return add


def decoder_spec(
    platform: Platform,
    architecture: Architecture,
    config: TransformerConfig,
    vp_stage: int | None = None,
) -> ModuleSpec | TransformerBlockSubmodules:
    """Return the layer specification of this pipeline stage, or of its model chunk `vp_stage`.

    The layers are Transformer Engine's or PyTorch's.
    """
    if platform.transformer_engine:
        layer = _engine_layer(architecture, config)
        _set_self_attention(layer, architecture, config)
        if config.attention_backend is AttnBackend.local:
            layer.submodules.self_attention.submodules.core_attention = FusedCausalAttention
        _set_activation(layer, config)
        return layer
    norm = ZeroCenteredRMSNorm if architecture.layernorm_zero_centered_gamma else RMSNorm
    layer = get_gpt_layer_local_spec(
        num_experts=config.num_moe_experts,
        normalization=config.normalization,
        qk_layernorm=config.qk_layernorm,
    )
    if architecture.is_moe:
        _set_router(layer)
        if architecture.add_bias_linear:
            _submodules(_mlp_submodules(layer).experts).linear_fc2 = ExpertRowParallelLinear
        # the name that Transformer Engine's layers write: no linear layer of experts has a norm
        del layer.submodules.sharded_state_dict_keys_map["pre_mlp_layernorm."]
    layer.submodules.input_layernorm = norm if architecture.norms_before else IdentityOp
    layer.submodules.pre_mlp_layernorm = norm if architecture.norms_before else IdentityOp
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = FusedCausalAttention
    _set_self_attention(layer, architecture, config)
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = norm
    if architecture.norms_after:
        _add_norms_after(layer, norm)
    _set_activation(layer, config)
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=norm)


def _set_activation(layer: ModuleSpec, config: TransformerConfig) -> None:
    """Give each MLP its own module for an activation with learned parameters."""
    if config.use_te_activation_func:
        _mlp_submodules(layer).activation_func = config.activation_func


def _set_self_attention(
    layer: ModuleSpec, architecture: Architecture, config: TransformerConfig
) -> None:
    """Give a layer Galen's self-attention if the model needs it."""
    base = architecture.local_rotary_base
    if base is None and not architecture.full_width_qk_norm:
        return
    local_rope = None
    if base is not None:
        local_rope = RotaryEmbedding(
            kv_channels=architecture.kv_channels,
            rotary_percent=architecture.rotary_percent,
            rotary_base=base,
            use_cpu_initialization=config.use_cpu_initialization,
        )
    attention = layer.submodules.self_attention
    attention.module = DecoderAttention
    options = {"architecture": architecture, "local_rope": local_rope}
    attention.params = {**attention.params, **options}


def _engine_layer(architecture: Architecture, config: TransformerConfig) -> ModuleSpec:
    """Return the specification of a layer of Transformer Engine's modules.

    Their norms read `layernorm_zero_centered_gamma` from the configuration.
    """
    layer = get_gpt_layer_with_transformer_engine_spec(
        num_experts=config.num_moe_experts,
        moe_grouped_gemm=config.moe_grouped_gemm,
        qk_layernorm=config.qk_layernorm,
    )
    if architecture.is_moe:
        _set_router(layer)
    if not architecture.norms_before:
        from megatron.core.extensions.transformer_engine import TEColumnParallelLinear

        # these have no norm on the input
        layer.submodules.self_attention.submodules.linear_qkv = TEColumnParallelLinear
        if architecture.is_moe:
            layer.submodules.pre_mlp_layernorm = IdentityOp
        else:
            _mlp_submodules(layer).linear_fc1 = TEColumnParallelLinear
    if architecture.norms_after:
        from megatron.core.extensions.transformer_engine import TENorm

        _add_norms_after(layer, TENorm)
    return layer


def _mlp_submodules(layer: ModuleSpec) -> Any:
    """Return the submodules of a layer's MLP or experts."""
    return _submodules(layer.submodules.mlp)


def _submodules(module: Any) -> Any:
    """Return the submodules of a module that is to be built.

    Megatron Core 0.16 has a specification of it, 0.19 a partial function.
    """
    if isinstance(module, functools.partial):
        return module.keywords["submodules"]
    return module.submodules


def _set_router(layer: ModuleSpec) -> None:
    """Give a layer with experts Galen's router."""
    _mlp_submodules(layer).router = BalancedRouter


def _add_norms_after(layer: ModuleSpec, norm: type) -> None:
    """Give a layer norms on the outputs of attention and MLP.

    In checkpoints they have the names that Megatron-Bridge has for such norms.
    """
    layer.module = NormAfterLayer
    layer.params = {**layer.params, "norm": norm}
    layer.submodules.sharded_state_dict_keys_map = {
        **layer.submodules.sharded_state_dict_keys_map,
        "post_attention_layernorm.": "self_attention.linear_proj.post_layernorm.",
        "post_mlp_layernorm.": "mlp.linear_fc2.post_layernorm.",
    }
