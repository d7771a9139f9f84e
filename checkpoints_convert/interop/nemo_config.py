"""The model's configuration in a NeMo 2 folder (`context/model.yaml`), read as data and written.

`model.yaml` holds the arguments of NeMo's classes with their defaults. The classes that it names
are compared with known names and never imported; `io.json`, from which NeMo itself builds the
objects, is not read here.
"""

import reprlib
from pathlib import Path
from typing import Any

from checkpoints_convert.conversion import bridge_config
from checkpoints_convert.conversion.interop_target import InteropTarget, always, is_function
from checkpoints_convert.conversion.validate import differences
from checkpoints_convert.families import FAMILIES, architecture_of
from galen import yaml_text
from galen.errors import DataError, UsageError, malformed, one_line
from megatron_ext.config.activations import ACTIVATIONS
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.rope import LLAMA3_SCALING

CONTEXT, WEIGHTS, TOKENIZER = "context", "weights", "nemo_tokenizer"
PREFIX = "module."
"""Before the names of tensors: NeMo saves the module that its model wraps."""
MODELS = {
    "llama": ("llama", "LlamaModel", "LlamaConfig"),
    "mistral": ("mistral", "MistralModel", "MistralConfig7B"),
    "qwen2": ("qwen2", "Qwen2Model", "Qwen2Config"),
    "qwen3": ("qwen3", "Qwen3Model", "Qwen3Config"),
}
"""By family: the module of NeMo that has it, its model and its configuration."""
MODULE = "nemo.collections.llm.gpt.model"
SCALED = "Llama31Config"
"""NeMo's configuration of a Llama with llama3 rotary scaling."""
# NeMo's names of the fields of llama3 rotary scaling, and Hugging Face's
_SCALING = {
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "old_context_len": "original_max_position_embeddings",
}
# Arguments that change what a model computes and have no field in Architecture: values of ours.
_ONLY: dict[str, tuple[Any, ...]] = {
    "normalization": ("RMSNorm",),
    "layernorm_zero_centered_gamma": (False,),
    "activation_func_clamp_value": (None,),
    "add_bias_linear": (False,),
    "position_embedding_type": ("rope",),
    "rotary_percent": (1.0,),
    "rotary_interleaved": (False,),
    "seq_len_interpolation_factor": (None,),
    "no_rope_freq": (None,),
    "num_moe_experts": (None,),
    "multi_latent_attention": (False,),
    "qk_l2_norm": (False,),
    "window_attn_skip_freq": (None,),
    "softmax_scale": (None,),
    "softmax_type": ("vanilla",),
    "glu_linear_offset": (0.0,),
    "apply_residual_connection_post_layernorm": (False,),
    "heterogeneous_block_specs": (False,),
    "mtp_num_layers": (None, 0),
}
_FUNCTIONS = {known.function: name for name, known in ACTIVATIONS.items() if not known.parameters}


def _is_mistral(architecture: Architecture) -> bool:
    return architecture.family == "mistral"


def _is_llama(architecture: Architecture) -> bool:
    return architecture.family == "llama"


TARGET = InteropTarget(
    "NeMo",
    supports={
        "rope_scaling_factor": _is_llama,
        "add_qkv_bias": always,
        "qk_layernorm": always,
        "window_size": _is_mistral,
        "activation": is_function,
        "gated_mlp": always,
    },
    # of families that NeMo has and `MODELS` does not, or of none that it has
    refuses=frozenset(
        {
            "activation_func_clamp_value",
            "add_bias_linear",
            "full_width_qk_norm",
            "glu_linear_offset",
            "layernorm_zero_centered_gamma",
            "llama_4_scaling_beta",
            "local_rotary_base",
            "longrope",
            "moe_ffn_hidden_size",
            "moe_router_pre_softmax",
            "moe_router_topk",
            "moe_shared_expert_gate",
            "moe_shared_expert_intermediate_size",
            "norm_placement",
            "num_moe_experts",
            "rotary_percent",
            "scale_embeddings",
            "seq_len_interpolation_factor",
            "softmax_scale",
            "softmax_type",
            "window_attn_skip_freq",
            "yarn",
        }
    ),
)


def read(folder: Path, vocab_size: int | None, positions: int | None = None) -> Architecture:
    """Return the architecture of the model in a NeMo 2 folder.

    Args:
        folder: the folder with `context/` and `weights/`.
        vocab_size: ids of its tokenizer, for a configuration that leaves the number to it.
        positions: maximum number of positions if another file has it: NeMo's importers store the
            window of a Mistral instead (none without a window) and 40,960 for each Qwen3.

    Raises:
        DataError: `model.yaml` is missing, is not a known model, or has an unsupported argument.
    """
    path = folder / CONTEXT / "model.yaml"
    if not path.is_file():
        raise DataError(f"{folder} is not a NeMo 2 checkpoint: {path} is missing")
    try:
        content, _ = yaml_text.read(path)
        model = content["_target_"]
        config = content["config"]
        family = next(
            (
                name
                for name, (module, known, _) in MODELS.items()
                if model == f"{MODULE}.{module}.{known}"
            ),
            None,
        )
    except (UsageError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} does not describe a model of NeMo: {one_line(error)}") from None
    if family is None:
        named = model if isinstance(model, str) else reprlib.repr(model)
        raise DataError(
            f"{path}: the model {named} is not known; known:"
            f" {', '.join(known for _, known, _ in MODELS.values())}"
        )
    with malformed(path):
        architecture = _architecture(family, config, vocab_size, positions)
    expected = architecture_of(FAMILIES[family], FAMILIES[family].config(architecture), str(path))
    if expected != architecture:
        raise DataError(
            f"{path} does not describe a {family} model: {differences(architecture, expected)}"
        )
    return architecture


def _architecture(
    family: str, config: dict[str, Any], vocab_size: int | None, positions: int | None
) -> Architecture:
    for name, supported in _ONLY.items():
        if name in config and config[name] not in supported:
            raise ValueError(
                f"{name} = {reprlib.repr(config[name])} is not supported (only {supported[0]!r})"
            )
    function = config.get("activation_func", {}).get("_target_", "")
    if function not in _FUNCTIONS:
        raise ValueError(
            f"activation_func = {reprlib.repr(function)} is not supported (only"
            f" {', '.join(_FUNCTIONS)})"
        )
    rows = config.get("vocab_size") or vocab_size
    if rows is None:
        raise ValueError(
            f"vocab_size is left to the tokenizer, and {CONTEXT}/{TOKENIZER} has no tokenizer.json;"
            " give --hf"
        )
    positions = positions or config.get("max_position_embeddings") or config["seq_length"]
    if positions is None:  # as NeMo's importer writes for a Mistral without a window
        raise ValueError(
            "seq_length is null, so that the number of positions is not known; give --hf"
        )
    heads = config["num_attention_heads"]
    hidden = config["hidden_size"]
    window = config.get("window_size")
    return Architecture(
        family=family,
        num_layers=config["num_layers"],
        hidden_size=hidden,
        ffn_hidden_size=config["ffn_hidden_size"],
        num_attention_heads=heads,
        num_query_groups=config.get("num_query_groups") or heads,
        kv_channels=config.get("kv_channels") or hidden // heads,
        vocab_size=rows,
        max_position_embeddings=positions,
        rotary_base=float(config["rotary_base"]),
        rope_scaling_factor=_rope_scaling(config),
        layernorm_epsilon=config["layernorm_epsilon"],
        share_embeddings_and_output_weights=config["share_embeddings_and_output_weights"],
        add_qkv_bias=config.get("add_qkv_bias", False),
        qk_layernorm=config.get("qk_layernorm", False),
        # NeMo writes Hugging Face's number here, not one less
        window_size=window[0] if window else None,
        activation=_FUNCTIONS[function],
        gated_mlp=config.get("gated_linear_unit", True),
    )


def _rope_scaling(config: dict[str, Any]) -> float | None:
    if "scale_factor" not in config:
        if config.get("rope_scaling"):
            raise ValueError("rope_scaling = True is Llama 4's and is not supported")
        return None
    for name, theirs in _SCALING.items():
        if config[name] != LLAMA3_SCALING[theirs]:
            raise ValueError(
                f"{name} = {reprlib.repr(config[name])} is not supported"
                f" (only {LLAMA3_SCALING[theirs]!r})"
            )
    return float(config["scale_factor"])


def arguments(architecture: Architecture) -> tuple[str, dict[str, Any]]:
    """Return the name of NeMo's configuration class for this model and its arguments.

    Dtype and kernels are left out.

    Raises:
        DataError: the family is not supported, or NeMo cannot express one of its properties.
    """
    if architecture.family not in MODELS:
        remedy = "; export it with --as-family llama" if architecture.family == "internlm2" else ""
        raise DataError(
            f"{architecture.family} models are not supported as checkpoints of NeMo (only"
            f" {', '.join(MODELS)}){remedy}"
        )
    TARGET.check(architecture)
    made = {
        **bridge_config.provider_arguments(architecture),
        "rotary_base": architecture.rotary_base,
    }
    name = MODELS[architecture.family][2]
    if architecture.rope_scaling_factor is not None:
        name = SCALED
        made["scale_factor"] = architecture.rope_scaling_factor
        made |= {field: LLAMA3_SCALING[theirs] for field, theirs in _SCALING.items()}
    if _is_mistral(architecture):
        made["window_size"] = (
            None if architecture.window_size is None else [architecture.window_size, 0]
        )
        made["cp_comm_type"] = None if architecture.window_size is None else "a2a"
    if architecture.family == "qwen3":
        made["max_position_embeddings"] = architecture.max_position_embeddings
    return name, made
