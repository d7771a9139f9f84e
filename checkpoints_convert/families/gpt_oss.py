"""gpt-oss-20b and 120b: experts with biases, attention sinks, a window in every other layer."""

from typing import Any

from checkpoints_convert.families import hf_config, layer_types, llama
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import DirectMapping, GatedMLPMapping, ParamMapping
from megatron_ext.config.architecture import Architecture

_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
_ROPE_THETA = 150000.0
"""Defaults of transformers."""


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a gpt-oss config.json."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=True, swiglu_alpha=1.702)
    for name in ("router_aux_loss_coef", "output_router_logits"):  # do not change the logits
        fields.pop(name, None)
    _check_quantization(fields.pop("quantization_config", None))
    fields.config.setdefault("rope_theta", _ROPE_THETA)
    if config.get("rope_parameters") is None and config.get("rope_scaling") is None:
        fields.config["rope_scaling"] = _YARN
    context = fields.pop_positive("initial_context_length", None)
    result = hf_config.architecture(
        fields,
        "gpt_oss",
        hidden_act="silu",
        num_query_groups=8,
        kv_channels=64,
        add_qkv_bias=True,
        add_bias_linear=True,
        softmax_type="learnable",
        activation="quick_gelu",
        glu_linear_offset=1.0,
        activation_func_clamp_value=_limit(fields),
        num_moe_experts=_same(fields, 128, "num_local_experts", "num_experts"),
        moe_router_topk=_same(fields, 4, "num_experts_per_tok", "experts_per_token"),
        moe_ffn_hidden_size=fields.pop_positive("intermediate_size"),
        **_windows(fields),
    )
    original = result.yarn and result.yarn.original_max_position_embeddings
    if context not in (None, original):
        raise ValueError(
            f"initial_context_length = {context} contradicts the rotary scaling's"
            f" original_max_position_embeddings = {original}"
        )
    return result


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a gpt-oss config.json."""
    result = hf_config.config(
        architecture,
        "gpt_oss",
        ["GptOssForCausalLM"],
        hidden_act="silu",
        attention_bias=True,
        sliding_window=layer_types.written_window(architecture),
        layer_types=layer_types.from_architecture(architecture),
        num_local_experts=architecture.num_moe_experts,
        num_experts_per_tok=architecture.moe_router_topk,
        swiglu_limit=architecture.activation_func_clamp_value,
    )
    if result["rope_scaling"] is None:
        result["rope_scaling"] = {"rope_type": "default"}  # null is transformers' default, YaRN
    return result


def _limit(fields: hf_config.Fields) -> float:
    """Return the bound of the gate and the up projection.

    Raises:
        ValueError: it is not a number.
    """
    value = fields.pop("swiglu_limit", 7.0)
    if type(value) not in (int, float):
        raise ValueError(f"swiglu_limit = {value!r} must be a number")
    return float(value)


def _same(fields: hf_config.Fields, default: int, *names: str) -> int:
    """Return a number that has several names.

    Raises:
        ValueError: they differ.
    """
    values = {
        name: value for name in names if (value := fields.pop_positive(name, None)) is not None
    }
    if len(set(values.values())) > 1:
        found = ", ".join(f"{name} = {value}" for name, value in values.items())
        raise ValueError(f"{found} contradict each other")
    return next(iter(values.values()), default)


def _windows(fields: hf_config.Fields) -> dict[str, Any]:
    """Return the fields of Architecture for the sliding window."""
    types = fields.pop("layer_types", None)
    if types is None:
        types = layer_types.every_nth_full(fields.pop_positive("num_hidden_layers"), 2)
    return layer_types.window_fields(types, fields.pop_positive("sliding_window", 128))


def _check_quantization(quantization: Any) -> None:
    """Refuse another quantization than the experts' MXFP4, which is decoded to bf16."""
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if method != "mxfp4":
        raise ValueError(
            f"quantization_config of quant_method {method!r} is not supported (only 'mxfp4')"
        )


def _experts(*names: str) -> Any:
    return tuple(f"model.layers.{{layer}}.mlp.experts.{name}" for name in names)


_ATTENTION: tuple[ParamMapping, ...] = (
    *llama.ATTENTION,
    llama.QKV_BIAS,
    DirectMapping(
        "decoder.layers.self_attention.linear_proj.bias",
        ("model.layers.{layer}.self_attn.o_proj.bias",),
    ),
    DirectMapping(
        "decoder.layers.self_attention.core_attention.softmax_offset",
        ("model.layers.{layer}.self_attn.sinks",),
    ),
)
_ROUTER: tuple[ParamMapping, ...] = (
    DirectMapping(
        "decoder.layers.pre_mlp_layernorm.weight",
        ("model.layers.{layer}.post_attention_layernorm.weight",),
    ),
    DirectMapping("decoder.layers.mlp.router.weight", ("model.layers.{layer}.mlp.router.weight",)),
    DirectMapping("decoder.layers.mlp.router.bias", ("model.layers.{layer}.mlp.router.bias",)),
)
_EXPERTS: tuple[ParamMapping, ...] = (
    GatedMLPMapping(
        "decoder.layers.mlp.experts.experts.linear_fc1.weight",
        _experts("gate_up_proj[{expert},gate]", "gate_up_proj[{expert},up]"),
    ),
    GatedMLPMapping(
        "decoder.layers.mlp.experts.experts.linear_fc1.bias",
        _experts("gate_up_proj_bias[{expert},gate]", "gate_up_proj_bias[{expert},up]"),
    ),
    DirectMapping(
        "decoder.layers.mlp.experts.experts.linear_fc2.weight", _experts("down_proj[{expert}]")
    ),
    DirectMapping(
        "decoder.layers.mlp.experts.experts.linear_fc2.bias", _experts("down_proj_bias[{expert}]")
    ),
)
FAMILY = Family(
    name="gpt_oss",
    architecture=architecture,
    config=config,
    shared=llama.SHARED,
    output=llama.OUTPUT,
    layer=(llama.NORMS_BEFORE[0], *_ATTENTION, *_ROUTER, *_EXPERTS),
    fused_experts=True,
)
