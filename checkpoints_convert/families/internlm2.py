"""InternLM2, InternLM2.5, MMedLM 2.

They are Llama's function under other names, with query, key and value in one tensor.

`wqkv` holds, for each key/value group, its query heads, its key, its value: Megatron's own order.
`w1` is the gate, `w3` the up projection, `w2` the down projection. transformers has no InternLM2;
its remote code is not run, the files are read.
"""

from typing import Any

from checkpoints_convert.families import hf_config
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import DirectMapping, GatedMLPMapping, VocabMapping
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of an InternLM2 config.json."""
    fields = hf_config.Fields(config)
    fields.require(bias=False)
    made = hf_config.architecture(fields, "internlm2")
    if made.kv_channels != made.hidden_size // made.num_attention_heads:
        raise ValueError(
            f"head_dim = {made.kv_channels} is not supported (InternLM's code takes hidden"
            " size over heads)"
        )
    scaling = "llama3" if made.rope_scaling_factor is not None else "yarn"
    if scaling == "llama3" or made.yarn is not None:
        raise ValueError(
            f"rotary scaling {scaling!r} is not supported (InternLM's code knows 'linear' and"
            " 'dynamic'); export a model trained with it with --as-family llama"
        )
    return made


def config(architecture: Architecture) -> dict[str, Any]:
    """Return an InternLM2 config.json; loading it in transformers needs InternLM's own code."""
    remote = {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    }
    common = hf_config.config(
        architecture, "internlm2", ["InternLM2ForCausalLM"], bias=False, auto_map=remote
    )
    return {name: value for name, value in common.items() if name != "head_dim"}


def _in_layer(*names: str) -> Any:
    return tuple(f"model.layers.{{layer}}.{name}.weight" for name in names)


FAMILY = Family(
    name="internlm2",
    architecture=architecture,
    config=config,
    shared=(
        VocabMapping("embedding.word_embeddings.weight", ("model.tok_embeddings.weight",)),
        DirectMapping("decoder.final_layernorm.weight", ("model.norm.weight",)),
    ),
    output=VocabMapping("output_layer.weight", ("output.weight",)),
    layer=(
        DirectMapping(
            "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
            _in_layer("attention_norm"),
        ),
        DirectMapping(
            "decoder.layers.self_attention.linear_qkv.weight", _in_layer("attention.wqkv")
        ),
        DirectMapping(
            "decoder.layers.self_attention.linear_proj.weight", _in_layer("attention.wo")
        ),
        DirectMapping("decoder.layers.mlp.linear_fc1.layer_norm_weight", _in_layer("ffn_norm")),
        GatedMLPMapping(
            "decoder.layers.mlp.linear_fc1.weight", _in_layer("feed_forward.w1", "feed_forward.w3")
        ),
        DirectMapping("decoder.layers.mlp.linear_fc2.weight", _in_layer("feed_forward.w2")),
    ),
    reference="checkpoints_convert.families.internlm2_reference",
)
