"""Mappings over random small shapes.

The round trip is the identity, every row occurs once, slices cover all.
"""

import dataclasses
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints_convert.conversion import weight_tasks
from checkpoints_convert.families import FAMILIES, hf_config
from checkpoints_convert.families.mappings import chunks, hf_shapes, num_rows
from checkpoints_convert.families.megatron_shapes import shape
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.rope import Yarn
from tests.checkpoints_convert.in_memory import to_hf, to_megatron


def yarns():
    return st.builds(
        Yarn,
        factor=st.sampled_from([2.0, 8.0]),
        original_max_position_embeddings=st.sampled_from([16, 32]),
        attention_factor=st.sampled_from([None, 1.0, 1.5]),
        beta_fast=st.sampled_from([32.0, 8.0]),
        truncate=st.booleans(),
    )


MOE = ("gpt_oss", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe")


@st.composite
def experts(draw, family):
    """Return the fields of Architecture for experts, {} for a dense family."""
    if family not in MOE:
        return {}
    pre_softmax = family not in ("gpt_oss", "mixtral") and draw(st.booleans())
    fields = {
        "num_moe_experts": draw(st.integers(2, 5)),
        "moe_router_pre_softmax": pre_softmax,
        "moe_router_topk": draw(st.integers(1 if pre_softmax else 2, 2)),
    }
    fields["moe_ffn_hidden_size"] = draw(st.integers(1, 7))
    if family == "qwen2_moe":
        fields["moe_shared_expert_intermediate_size"] = draw(st.integers(1, 7))
        fields["moe_shared_expert_gate"] = True
    return fields


NO_SCALING = {"rope_scaling_factor": None, "yarn": None}
OWN = {
    "qwen2": {"add_qkv_bias": True},
    "qwen2_moe": {"add_qkv_bias": True},
    "qwen3": {"qk_layernorm": True},
    "qwen3_moe": {"qk_layernorm": True},
    "olmo2": {"full_width_qk_norm": True, "norm_placement": "after"},
    "olmo3": {"full_width_qk_norm": True, "norm_placement": "after"},
    "olmoe": {"full_width_qk_norm": True},
    "apertus": {"qk_layernorm": True, "activation": "xielu", "gated_mlp": False},
    "phi3": NO_SCALING,
    "internlm2": NO_SCALING,
    "gemma3_text": {
        "activation": "gelu_pytorch_tanh",
        "qk_layernorm": True,
        "norm_placement": "both",
        "layernorm_zero_centered_gamma": True,
        "scale_embeddings": True,
        "window_size": 16,
    },
    "gpt_oss": {
        "add_qkv_bias": True,
        "add_bias_linear": True,
        "softmax_type": "learnable",
        "activation": "quick_gelu",
        "glu_linear_offset": 1.0,
        "activation_func_clamp_value": 7.0,
    },
}
"""Properties that all models of a family have."""


@st.composite
def architectures(draw):
    family = draw(st.sampled_from(sorted(FAMILIES)))
    llama3_factor = draw(st.sampled_from([None, 8.0, 32.0]))
    groups, size = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4, 6]))
    architecture = Architecture(
        family=family,
        **draw(experts(family)),
        num_layers=draw(st.integers(1, 3)),
        hidden_size=draw(st.integers(1, 12)),
        ffn_hidden_size=draw(st.integers(1, 9)),
        num_attention_heads=groups * draw(st.integers(1, 3)),
        num_query_groups=groups,
        kv_channels=size,
        vocab_size=draw(st.integers(1, 300)),
        max_position_embeddings=64,
        rotary_base=draw(st.sampled_from([1e4, 5e5, 1e6])),
        rope_scaling_factor=llama3_factor,
        yarn=draw(st.none() | yarns()) if llama3_factor is None else None,
        layernorm_epsilon=draw(st.sampled_from([1e-5, 1e-6])),
        share_embeddings_and_output_weights=draw(st.booleans()),
    )
    return dataclasses.replace(architecture, **OWN.get(family, {}))


def all_tasks_of(architecture):
    return weight_tasks.all_tasks(FAMILIES[architecture.family], architecture)


def random_tensors(mapping, architecture):
    return [torch.randn(size) for size in hf_shapes(mapping, architecture)]


@settings(max_examples=60, deadline=None)
@given(architectures())
def test_round_trip_is_the_identity(architecture):
    names = set()
    for task in all_tasks_of(architecture):
        tensors = random_tensors(task.mapping, architecture)
        megatron_tensor = to_megatron(task, tensors, architecture)
        assert megatron_tensor.shape == shape(task.megatron, architecture)
        expected = torch.cat([torch.atleast_1d(tensor) for tensor in tensors])
        assert torch.cat(to_hf(task, megatron_tensor, architecture)).equal(expected)
        assert not names & set(task.hf)
        names |= set(task.hf)
    assert len(names) >= 9 * architecture.num_layers // 2


@settings(max_examples=60, deadline=None)
@given(architectures(), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_slices_cover_each_row_once(architecture, largest, tensor_parallel):
    for task in all_tasks_of(architecture):
        runs = task.mapping.rows(architecture)
        divided = chunks(runs, largest)
        assert all(0 < num_rows(part) <= largest for _, part in divided)
        assert [row for row, _ in divided] == [
            sum(num_rows(part) for _, part in divided[:n]) for n in range(len(divided))
        ]
        rows = [
            (run.tensor, row)
            for _, part in divided
            for run in part
            for row in range(run.start, run.stop)
        ]
        assert rows == [(run.tensor, row) for run in runs for row in range(run.start, run.stop)]
        assert (
            len(set(rows))
            == len(rows)
            == sum(math.prod(size[:1]) for size in hf_shapes(task.mapping, architecture))
        )
        slices = weight_tasks.megatron_slices(
            task, architecture, None, torch.float32, tensor_parallel
        )
        assert (
            sum(slice_.shape[0] for _, slice_ in slices)
            == weight_tasks.padded_shape(task, architecture, tensor_parallel)[0]
        )


WINDOW = (
    *("mistral", "ministral", "ministral3", "mixtral"),
    *("qwen2", "qwen3", "qwen3_moe", "phi3", "olmo3", "gpt_oss"),
)
"""Families whose models may have a window in all layers."""
WINDOW_BY_LAYER = ("qwen2", "qwen3", "olmo3", "gpt_oss", "ministral")


def own_fields(architecture, window, local_base):
    """Return the fields of Architecture that a model of the family has."""
    name = architecture.family
    own = {}
    if name in ("gpt_oss", "mixtral", "olmoe"):  # these have no other width
        own["ffn_hidden_size"] = architecture.moe_ffn_hidden_size
    if name in WINDOW:
        own["window_size"] = window
    if name in WINDOW_BY_LAYER and window and architecture.num_layers > 1:
        own["window_attn_skip_freq"] = (0, 1, 0)[: architecture.num_layers]
        own["local_rotary_base"] = local_base if name == "olmo3" else None
    if name == "gemma3_text":
        own["window_attn_skip_freq"] = (1,) * architecture.num_layers
        own["local_rotary_base"] = local_base or 1e4
        own["softmax_scale"] = None if window else 168**-0.5
    if name == "ministral3":
        yarn = architecture.yarn or Yarn(factor=4.0, original_max_position_embeddings=16)
        own |= {"rope_scaling_factor": None, "yarn": yarn, "llama_4_scaling_beta": 0.1}
    if name == "internlm2":
        own["hidden_size"] = architecture.kv_channels * architecture.num_attention_heads
    return own


@settings(max_examples=100, deadline=None)
@given(architectures(), st.sampled_from([None, 16]), st.sampled_from([None, 7e3]), st.booleans())
def test_configurations_go_both_ways(architecture, window, local_base, neutral):
    name = architecture.family
    own = own_fields(architecture, window, local_base)
    architecture = dataclasses.replace(architecture, **own)
    config = FAMILIES[name].config(architecture)
    if neutral:
        config |= {
            "use_cache": True,
            "torch_dtype": "bfloat16",
            "eos_token_id": [1, 2],
            "attention_dropout": 0.0,
        }
    assert FAMILIES[name].architecture(config) == architecture
    # the same in the fields of transformers 5, in place of others
    other = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 7.0, "factor": 2.0}}
    if name == "gemma3_text":
        other = {"rope_parameters": {"full_attention": other["rope_parameters"]}}
    other["max_position_embeddings"] = 7
    config = hf_config.with_rope(config | {"rope_scaling": None} | other, config)
    assert FAMILIES[name].architecture(config) == architecture
