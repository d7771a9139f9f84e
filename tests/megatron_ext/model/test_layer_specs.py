"""The layers of Transformer Engine, which are not installed here: their specification."""

import dataclasses
import functools
from types import SimpleNamespace

import pytest
import torch
from megatron.core.models.common.embeddings.yarn_rotary_pos_embedding import (
    _yarn_get_concentration_factor_from_config,
)
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.moe.experts import TEGroupedMLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.utils import is_layer_window_attention

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.rope import Yarn
from megatron_ext.model import layer_specs, self_attention
from megatron_ext.model.activations import Xielu
from megatron_ext.model.layer_specs import NormAfterLayer, _mlp_submodules, decoder_spec
from megatron_ext.model.router import BalancedRouter
from megatron_ext.model.self_attention import DecoderAttention
from tests.megatron_ext.config.test_recipe import SHAPE
from tests.megatron_ext.experts import ARCHITECTURE


@pytest.fixture
def transformer_engine(monkeypatch):
    """Megatron's modules of Transformer Engine, which can be named without it."""
    from megatron.core.extensions import transformer_engine, transformer_engine_spec_provider

    provider = transformer_engine_spec_provider.TESpecProvider
    monkeypatch.setattr(transformer_engine_spec_provider, "is_te_min_version", lambda _: True)
    monkeypatch.setattr(gpt_layer_specs, "TESpecProvider", provider, raising=False)
    return transformer_engine


@pytest.mark.parametrize("norm_placement", ["before", "after", "both"])
def test_norm_placement_with_transformer_engine(transformer_engine, norm_placement):
    architecture = dataclasses.replace(SHAPE, norm_placement=norm_placement)
    platform = SimpleNamespace(transformer_engine=True)
    layer = decoder_spec(platform, architecture, architecture.transformer_config())
    modules = layer.submodules
    first = {modules.self_attention.submodules.linear_qkv, _mlp_submodules(layer).linear_fc1}
    if norm_placement == "before":
        assert first == {transformer_engine.TELayerNormColumnParallelLinear}
        return
    assert layer.module is NormAfterLayer
    assert layer.params == {"norm": transformer_engine.TENorm}
    if norm_placement == "both":
        assert first == {transformer_engine.TELayerNormColumnParallelLinear}
        return
    assert first == {transformer_engine.TEColumnParallelLinear}
    assert modules.input_layernorm is modules.pre_mlp_layernorm is IdentityOp


def test_experts_with_transformer_engine(transformer_engine, monkeypatch):
    """A grouped GEMM, the norm before the experts on its own, and Galen's router."""
    from megatron.core.extensions import transformer_engine_spec_provider as provider

    for name in ("TEColumnParallelGroupedLinear", "TERowParallelGroupedLinear"):
        monkeypatch.setattr(provider, name, type(name, (), {}))
    architecture = Architecture(**ARCHITECTURE)
    platform = SimpleNamespace(transformer_engine=True)
    config = architecture.transformer_config(moe_grouped_gemm=True)
    modules = decoder_spec(platform, architecture, config).submodules
    assert modules.pre_mlp_layernorm is not IdentityOp
    assert "pre_mlp_layernorm." not in modules.sharded_state_dict_keys_map
    layer = modules.mlp
    experts = _submodules(layer)
    assert experts.router is BalancedRouter
    assert _module(layer) is MoELayer
    assert _module(experts.experts) is TEGroupedMLP
    assert _submodules(experts.experts).linear_fc1 is provider.TEColumnParallelGroupedLinear


def _module(spec):
    """Return the module of a specification (megatron-core 0.16) or partial function (0.19)."""
    return spec.func if isinstance(spec, functools.partial) else spec.module


def _submodules(spec):
    return spec.keywords["submodules"] if isinstance(spec, functools.partial) else spec.submodules


def test_fused_geglu_is_selected_by_the_function_that_the_core_knows():
    """Megatron Core's fused GeGLU is the tanh approximation, its unfused GELU is not."""
    geglu = dataclasses.replace(SHAPE, activation="gelu_pytorch_tanh")
    fused = geglu.transformer_config(bias_activation_fusion=True)
    assert fused.bias_activation_fusion and fused.activation_func is torch.nn.functional.gelu
    unfused = geglu.transformer_config()
    values = torch.linspace(-5, 5, 101)
    expected = torch.nn.functional.gelu(values, approximate="tanh")
    torch.testing.assert_close(unfused.activation_func(values), expected)
    ungated = dataclasses.replace(geglu, gated_mlp=False)
    assert not ungated.transformer_config(bias_activation_fusion=True).bias_activation_fusion


@pytest.mark.parametrize("platform", ["transformer_engine", "torch"])
def test_each_mlp_has_its_own_module_for_a_learned_activation(
    transformer_engine, monkeypatch, platform
):
    monkeypatch.setattr(layer_specs, "get_num_layers_to_build", lambda *_, **__: 1)
    architecture = dataclasses.replace(SHAPE, activation="xielu", gated_mlp=False)
    config = architecture.transformer_config(bias_activation_fusion=True)
    assert not config.bias_activation_fusion
    engine = platform == "transformer_engine"
    spec = decoder_spec(SimpleNamespace(transformer_engine=engine), architecture, config)
    layer = spec if engine else spec.layer_specs[0]
    assert _mlp_submodules(layer).activation_func is Xielu
    assert config.use_te_activation_func  # makes the core build the module, in both versions


def test_layers_with_a_window_have_rotary_positions_of_their_own(transformer_engine):
    architecture = dataclasses.replace(
        SHAPE,
        full_width_qk_norm=True,
        window_size=8,
        window_attn_skip_freq=(1, 1, 0) * 10,
        local_rotary_base=5e3,
    )
    config = architecture.transformer_config(use_cpu_initialization=True)
    # the core asks it layer by layer
    layers = [
        is_layer_window_attention(config.window_size, config.window_attn_skip_freq, number)
        for number in range(1, 31)
    ]
    assert layers == [True, True, False] * 10
    layer = decoder_spec(SimpleNamespace(transformer_engine=True), architecture, config)
    attention = layer.submodules.self_attention
    assert attention.module is DecoderAttention
    frequencies = attention.params["local_rope"].inv_freq
    size = architecture.kv_channels
    expected = 5e3 ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    torch.testing.assert_close(frequencies, expected)


def test_layers_without_yarn_keep_the_fused_rotary_kernel():
    yarn = Yarn(factor=8.0, original_max_position_embeddings=64)
    config = dataclasses.replace(SHAPE, yarn=yarn).transformer_config()
    config.apply_rope_fusion = True  # which needs Transformer Engine
    full = self_attention._rope_config(config, yarn, is_local=False)
    local = self_attention._rope_config(config, yarn, is_local=True)
    assert (full.apply_rope_fusion, local.apply_rope_fusion) == (False, True)
    factor = _yarn_get_concentration_factor_from_config
    assert factor(full) == pytest.approx(yarn.default_attention_factor)
    assert factor(local) == 1.0
    pattern = dataclasses.replace(
        SHAPE, yarn=yarn, window_attn_skip_freq=(1, 1, 0) * 10, local_rotary_base=1e4
    )
    assert pattern.num_fusible_rope_layers == 20
