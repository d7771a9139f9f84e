"""Two families with properties that no registered family has, each declared as its own file would.

Arcee is a Llama whose MLP is an ungated squared ReLU; EXAONE 4 has its norms after attention and
MLP, and norms on query and key heads.
"""

import dataclasses

from checkpoints_convert.families import hf_config, llama


def _arcee(config):
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False, mlp_bias=False)
    return hf_config.architecture(fields, "arcee", activation="relu2", gated_mlp=False)


def _arcee_config(architecture):
    return hf_config.config(
        architecture, "arcee", ["ArceeForCausalLM"], attention_bias=False, mlp_bias=False
    )


ARCEE = dataclasses.replace(
    llama.FAMILY,
    name="arcee",
    architecture=_arcee,
    config=_arcee_config,
    layer=(*llama.NORMS_BEFORE, *llama.ATTENTION, *llama.UNGATED_MLP),
)


def _exaone4(config):
    fields = hf_config.Fields(config)
    layers = config["num_hidden_layers"]
    fields.require(
        sliding_window=None, sliding_window_pattern=0, layer_types=["full_attention"] * layers
    )
    return hf_config.architecture(fields, "exaone4", qk_layernorm=True, norm_placement="after")


def _exaone4_config(architecture):
    return hf_config.config(
        architecture,
        "exaone4",
        ["Exaone4ForCausalLM"],
        sliding_window=None,
        sliding_window_pattern=0,
        layer_types=["full_attention"] * architecture.num_layers,
    )


EXAONE4 = dataclasses.replace(
    llama.FAMILY,
    name="exaone4",
    architecture=_exaone4,
    config=_exaone4_config,
    layer=(*llama.NORMS_AFTER, *llama.ATTENTION, *llama.QK_NORM, *llama.GATED_MLP),
)
