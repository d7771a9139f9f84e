"""Which layers AWQ scales together, for models that llmcompressor does not know.

AWQ multiplies the outputs of a layer by factors and divides the weights of the layers after it by
them. For unknown models llmcompressor takes the layers of a Llama, which changes the function of a
model whose layers are connected otherwise.
"""

from collections.abc import Collection

_ATTENTION = ("re:.*v_proj$", ("re:.*o_proj$",))
_GATED_MLP = ("re:.*up_proj$", ("re:.*down_proj$",))
_QUERY_KEY_VALUE = ("re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$")
_LLAMA = (
    ("re:.*input_layernorm$", _QUERY_KEY_VALUE),
    _ATTENTION,
    ("re:.*post_attention_layernorm$", ("re:.*gate_proj$", "re:.*up_proj$")),
    _GATED_MLP,
)

MAPPINGS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    # without a gate, the activation is between the products: no factor passes xIELU
    "ApertusForCausalLM": (
        ("re:.*attention_layernorm$", _QUERY_KEY_VALUE),
        _ATTENTION,
        ("re:.*feedforward_layernorm$", ("re:.*up_proj$",)),
    ),
    "MinistralForCausalLM": _LLAMA,
    "Ministral3ForCausalLM": _LLAMA,
    # norms after attention and MLP: their outputs are residuals
    "Olmo2ForCausalLM": (_ATTENTION, _GATED_MLP),
}
"""By the model's class: the scaled layer, and those that take its outputs."""


def find(
    model_class: str, known: Collection[str]
) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """Return the mappings of a model; None for llmcompressor's own.

    Args:
        model_class: name of the model's class.
        known: names that llmcompressor has mappings for.

    Raises:
        ValueError: neither is known.
    """
    if model_class in MAPPINGS:
        return MAPPINGS[model_class]
    if model_class in known:
        return None
    raise ValueError(
        f"awq: no mappings are known for {model_class}, and those of a Llama would change it; use"
        " gptq or int8"
    )
