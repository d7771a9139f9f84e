"""Reads and writes the fields of config.json that Llama-like models share.

Unknown fields are refused by name.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from megatron_ext.config.architecture import Architecture, properties
from megatron_ext.config.rope import LLAMA3_SCALING, Yarn

# Fields that do not change what the model computes from token ids (dropout is for training, which
# sets its own).
_NEUTRAL = {
    *(
        "_name_or_path",
        "architectures",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "auto_map",
    ),
    *(
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "tokenizer_class",
    ),
    *(
        "initializer_range",
        "pretraining_tp",
        "attention_dropout",
        "attn_implementation",
        "_attn_implementation",
        "return_dict",
    ),
    *(
        "output_attentions",
        "output_hidden_states",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "finetuning_task",
    ),
    *(
        "task_specific_params",
        "chunk_size_feed_forward",
        "is_encoder_decoder",
        "torchscript",
        "use_bfloat16",
        "prefix",
        "is_llama_config",
    ),
    *(
        "transformers.js_config",
        "max_sequence_length",
        "cross_attention_hidden_size",
        "gradient_checkpointing",
        "_commit_hash",
        "unsloth_fixed",
        "unsloth_version",
    ),
    *(
        "attn_implementation_autoset",
        "_attn_implementation_autoset",
        "min_length",
        "max_length",
        "hidden_dropout",
    ),
}
_ALWAYS = {
    "is_decoder": None,
    "add_cross_attention": None,
    "tie_encoder_decoder": None,
    "rope_interleaved": False,
}


class Fields:
    """The fields of a config.json, each read once; `reject_unknown` refuses the rest."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.known = set(_NEUTRAL)

    def pop(self, name: str, *default: Any) -> Any:
        """Return a field, or the default; KeyError when it is missing and has none."""
        self.known.add(name)
        return self.config.get(name, *default) if default else self.config[name]

    def pop_positive(self, name: str, *default: Any) -> Any:
        """Return a field that is a positive integer, or the default.

        Raises:
            ValueError: it is something else.
            KeyError: it is missing and has no default.
        """
        value = self.pop(name, *default)
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} = {value!r} must be a positive integer")
        return value

    def pop_bool(self, name: str, default: bool) -> bool:
        """Return a field that is true or false, or the default.

        Raises:
            ValueError: it is something else.
        """
        value = self.pop(name, default)
        if type(value) is not bool:
            raise ValueError(f"{name} = {value!r} must be true or false")
        return value

    def require(self, **expected: Any) -> None:
        """Refuse fields whose value differs from the one of Megatron's model; absent is fine.

        Raises:
            ValueError: names the field and its value.
        """
        for name, supported in expected.items():
            value = self.pop(name, supported)
            if value != supported and not (supported is None and value is False):
                raise ValueError(f"{name} = {value!r} is not supported (only {supported!r})")

    def reject_unknown(self) -> None:
        """Refuse a field that is set and unknown to the family: it might change the function."""
        unknown = [
            f"{name} = {value!r}"
            for name, value in self.config.items()
            if name not in self.known
            and not name.startswith("_")
            and value is not None
            and value is not False
        ]
        if unknown:
            raise ValueError(
                f"{'; '.join(unknown)}: not known to this family and may change what the model"
                " computes; remove it if it does not"
            )


def architecture(
    fields: Fields,
    family: str,
    *,
    hidden_act: str | None = None,
    num_query_groups: int | None = None,
    kv_channels: int | None = None,
    tied: bool = False,
    activation_field: str = "hidden_act",
    rope: Mapping[str, Any] | None = None,
    linear_scaling: bool = False,
    **own: Any,
) -> Architecture:
    """Return the architecture that the common fields describe.

    `own` are further fields of Architecture.

    Args:
        fields: the configuration; the family has read its own fields already.
        family: name of the family.
        hidden_act: the field's only value; None for the name of the activation.
        num_query_groups: of a config.json without `num_key_value_heads`, by the family's code;
            None for as many as heads, which null always means.
        kv_channels: default size of a head; None for hidden size over heads.
        tied: default for tied embeddings.
        activation_field: name of the activation's field.
        rope: rotary positions as in `rope_parameters`, which the family has read itself; None to
            read the common fields.
        linear_scaling: whether the family has linear rotary scaling.
        own: further fields of Architecture, the family's properties among them.

    Raises:
        ValueError: a field has a value that Megatron's model does not support.
        KeyError: a field is missing.
    """
    activation = hidden_act or own.get("activation", properties()["activation"])
    fields.require(**{activation_field: activation}, **_ALWAYS)
    heads = fields.pop_positive("num_attention_heads")
    hidden = fields.pop_positive("hidden_size")
    positions = fields.pop_positive("max_position_embeddings")
    if rope is None:
        rope = rope_parameters(fields)
    rotary_fields = _rotary_fields(rope, positions, linear_scaling)
    result = Architecture(
        family=family,
        num_layers=fields.pop_positive("num_hidden_layers"),
        hidden_size=hidden,
        ffn_hidden_size=fields.pop_positive("intermediate_size"),
        num_attention_heads=heads,
        num_query_groups=fields.pop_positive("num_key_value_heads", num_query_groups) or heads,
        kv_channels=fields.pop_positive("head_dim", None) or kv_channels or hidden // heads,
        vocab_size=fields.pop_positive("vocab_size"),
        max_position_embeddings=positions,
        **rotary_fields,
        layernorm_epsilon=fields.pop("rms_norm_eps"),
        share_embeddings_and_output_weights=fields.pop("tie_word_embeddings", tied),
        **own,
    )
    types = fields.config.get("layer_types")
    if types is not None and len(types) != result.num_layers:
        raise ValueError(
            f"layer_types lists {len(types)} layers, num_hidden_layers is {result.num_layers}"
        )
    fields.reject_unknown()
    return result


def config(
    architecture: Architecture, model_type: str, architectures: Collection[str], **own: Any
) -> dict[str, Any]:
    """Return the common fields of a config.json; `own` are the family's further ones."""
    return {
        "architectures": list(architectures),
        "model_type": model_type,
        "hidden_act": architecture.activation,
        "num_hidden_layers": architecture.num_layers,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.ffn_hidden_size,
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_query_groups,
        "head_dim": architecture.kv_channels,
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.max_position_embeddings,
        "rope_theta": architecture.rotary_base,
        "rope_scaling": _rope_scaling(architecture),
        "rms_norm_eps": architecture.layernorm_epsilon,
        "tie_word_embeddings": architecture.share_embeddings_and_output_weights,
        **own,
    }


def with_rope(config: Mapping[str, Any], rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the rotary positions of `rope`, in its version's fields.

    transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.

    Args:
        config: the fields to change.
        rope: a configuration with the other positions, as `Family.config` returns it.
    """
    changed = dict(config)
    changed["max_position_embeddings"] = rope["max_position_embeddings"]
    changed.pop("initial_context_length", None)  # gpt-oss' copy of a field of its scaling
    if config.get("rope_parameters") is None and "rope_parameters" not in rope:
        return changed | {name: rope[name] for name in ("rope_theta", "rope_scaling")}
    changed.pop("rope_theta", None)
    changed.pop("rope_scaling", None)
    if "rope_parameters" in rope:
        return changed | {"rope_parameters": rope["rope_parameters"]}
    parameters: dict[str, Any] = {
        "rope_theta": rope["rope_theta"],
        **(rope["rope_scaling"] or {"rope_type": "default"}),
    }
    if "partial_rotary_factor" in rope:
        parameters["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if "full_attention" in config["rope_parameters"]:  # by type of layer
        parameters = {**config["rope_parameters"], "full_attention": parameters}
    changed["rope_parameters"] = parameters
    return changed


def _rope_scaling(architecture: Architecture) -> dict[str, Any] | None:
    """Return the rotary scaling of a model in Hugging Face's fields, None for none."""
    if architecture.rope_scaling_factor is not None:
        return {
            "rope_type": "llama3",
            "factor": architecture.rope_scaling_factor,
            **LLAMA3_SCALING,
        }
    if architecture.yarn is not None:
        options = dataclasses.asdict(architecture.yarn)
        if options["attention_factor"] is None:
            del options["attention_factor"]
        return {"rope_type": "yarn", **options}
    if architecture.seq_len_interpolation_factor is not None:
        return {"rope_type": "linear", "factor": architecture.seq_len_interpolation_factor}
    return None


def rope_parameters(fields: Fields) -> dict[str, Any]:
    """Return the rotary base and scaling of a config.json as transformers 5 writes them."""
    new = fields.pop("rope_parameters", None)
    old = fields.pop("rope_scaling", None)
    base = fields.pop("rope_theta", 10000.0)
    if not isinstance(new, dict | None) or not isinstance(old, dict | None):
        raise ValueError(
            f"rope_parameters = {new!r}, rope_scaling = {old!r}: neither an object nor null"
        )
    if new and old and new != old:
        raise ValueError(
            f"rope_scaling = {old!r} contradicts rope_parameters = {new!r}; remove one of them"
        )
    # transformers 5 writes rope_parameters, earlier ones the other two
    return {"rope_theta": base, **(new or old or {})}


def _rotary_fields(rope: Mapping[str, Any], positions: int, linear_scaling: bool) -> dict[str, Any]:
    """Return the fields of Architecture for the rotary base and scaling of `rope_parameters`.

    Args:
        rope: the rotary base and scaling.
        positions: `max_position_embeddings`.
        linear_scaling: whether the family has linear scaling.
    """
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            f"rotary partial_rotary_factor = {rope['partial_rotary_factor']!r} is not"
            " supported (only 1.0)"
        )
    # "dynamic" scales only beyond max_position_embeddings, which no run here exceeds; the field
    # stays in the exported config.json
    known = {"default": {"factor"}, "dynamic": {"factor"}, "llama3": _LLAMA3, "yarn": _YARN}
    if linear_scaling:
        known["linear"] = {"factor"}
    if rope_type not in known:
        supported = ", ".join(sorted({*known} - {"default", "dynamic"}))
        raise ValueError(f"rotary scaling {rope_type!r} is not supported (only {supported})")
    common = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    if unknown := sorted(set(rope) - known[rope_type] - common):
        raise ValueError(
            f"rotary scaling {unknown[0]} = {rope[unknown[0]]!r} is not known and is not supported"
        )
    result: dict[str, Any] = {"rotary_base": float(rope["rope_theta"])}
    if rope_type == "llama3":
        result["rope_scaling_factor"] = _llama3_factor(rope, positions)
    elif rope_type == "yarn":
        result["yarn"] = _yarn(rope, positions)
    elif rope_type == "linear":
        result["seq_len_interpolation_factor"] = float(rope["factor"])
    return result


_LLAMA3 = {"factor", *LLAMA3_SCALING}
_YARN = {field.name for field in dataclasses.fields(Yarn)} | {"mscale", "mscale_all_dim"}


def _llama3_factor(rope: Mapping[str, Any], positions: int) -> float:
    """Return the factor of Llama 3's scaling; refuse other constants than Megatron Core's.

    Args:
        rope: its fields in config.json.
        positions: `max_position_embeddings`, the default of the original positions.
    """
    defaults = {"original_max_position_embeddings": positions}
    for field, supported in LLAMA3_SCALING.items():
        value = rope.get(field, defaults.get(field))
        if value != supported:
            raise ValueError(
                f"rotary scaling {field} = {value!r} is not supported (only {supported!r})"
            )
    return float(rope["factor"])


def _yarn(rope: Mapping[str, Any], positions: int) -> Yarn:
    """Return YaRN's scaling with transformers' defaults.

    Args:
        rope: its fields in config.json.
        positions: `max_position_embeddings`, the default of the original positions.
    """
    options = {
        name: rope[name]
        for name in ("beta_fast", "beta_slow", "attention_factor", "truncate")
        if rope.get(name) is not None
    }
    yarn = Yarn(
        factor=rope["factor"],
        original_max_position_embeddings=rope.get("original_max_position_embeddings") or positions,
        **options,
    )
    mscale = rope.get("mscale")
    all_dim = rope.get("mscale_all_dim")
    if mscale and all_dim and yarn.attention_factor is None:
        log_factor = yarn.default_attention_factor - 1.0
        ratio = (mscale * log_factor + 1.0) / (all_dim * log_factor + 1.0)
        yarn = dataclasses.replace(yarn, attention_factor=ratio)
    return yarn
