"""The Megatron model computes what the Hugging Face model computes."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import layers
from transformers import AutoModelForCausalLM

from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.model.build import _mark_expert_parameters, build_model
from tests.conftest import import_model
from tests.megatron_ext.config.test_recipe import SHAPE

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "tied, grouped heads": {},
    "untied, rotary base": {"tie_word_embeddings": False, "rope_theta": 500000.0},
    "all heads, head size, llama3 scaling": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    # 100 tokens: also positions after the original ones
    "yarn": {"rope_parameters": YARN},
    "yarn, attention factor from mscale, own range": {
        "head_dim": 32,
        "rope_parameters": YARN
        | {"beta_fast": 8.0, "beta_slow": 2.0, "mscale": 2.0, "mscale_all_dim": 0.5}
        | {"truncate": False},
    },
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory, make_llama, start_forked):
    """The token ids, and each configuration's Hugging Face folder and Megatron outputs.

    All are computed in one process.
    """
    folder = tmp_path_factory.mktemp("computed")
    tokens = torch.randint(300, (2, 100), generator=torch.Generator().manual_seed(1))
    torch.save(tokens, folder / "tokens.pt")
    models = {name: make_llama(**options) for name, options in CONFIGS.items()}
    pairs = [
        (folder / f"megatron{index}", folder / f"outputs{index}.pt") for index in range(len(models))
    ]
    for hf, (checkpoint, _) in zip(models.values(), pairs, strict=True):
        import_model(hf, checkpoint)
    words = (word for pair in pairs for word in pair)
    codes, written = start_forked(
        1, folder / "tokens.pt", *words, module="tests.megatron_ext.print_logits"
    ).wait()
    assert codes == [0], written[-3000:]
    return tokens, {
        name: (hf, torch.load(outputs))
        for (name, hf), (_, outputs) in zip(models.items(), pairs, strict=True)
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_losses_equal_hugging_faces(computed, name):
    tokens, (hf, outputs) = computed[0], computed[1][name]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(hf)(tokens).logits
    assert expected.std() > 0.5  # a model whose logits are all alike would prove nothing
    torch.testing.assert_close(outputs["logits"][..., :300], expected, rtol=1e-5, atol=1e-5)
    losses = torch.nn.functional.cross_entropy(
        expected.transpose(1, 2), tokens.roll(-1, 1), reduction="none"
    )
    # the 84 padded ids take no probability
    torch.testing.assert_close(outputs["losses"], losses, rtol=1e-5, atol=1e-5)


class FusedGradients(platforms.Platform):
    """A CPU that claims layers with their own accumulation of gradients."""

    model_options = {  # noqa: RUF012
        "use_cpu_initialization": True,
        "gradient_accumulation_fusion": True,
    }


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_fused_gradients_without_apex():
    platforms.current_platform()
    parallel_groups.initialize(Parallel(), seed=1)
    platform = FusedGradients(device=torch.device("cpu"), backend="gloo", transformer_engine=False)
    shape = dataclasses.replace(SHAPE, num_layers=1, vocab_size=100)
    try:
        model = build_model(platform, shape, 16, params_dtype=torch.float32)
    finally:
        parallel_state.destroy_model_parallel()
    assert model.config.gradient_accumulation_fusion  # of Transformer Engine's layers
    assert not model.output_layer.gradient_accumulation_fusion
    assert not layers._grad_accum_fusion_available


def test_transformer_engine_accumulates_gradients_without_apex():
    for engine in (True, False):
        platform = platforms.Platform(
            device=torch.device("cuda", 0), backend="nccl", transformer_engine=engine
        )
        assert platform.model_options["gradient_accumulation_fusion"] == engine
        assert platform.model_options["deallocate_pipeline_outputs"]
    cpu = platforms.Platform(device=torch.device("cpu"), backend="gloo", transformer_engine=False)
    assert not cpu.model_options["deallocate_pipeline_outputs"]  # gloo may still be sending


@pytest.mark.parametrize("expert_tensor", [1, 2])
def test_biases_of_experts_are_marked_as_each_rank_has_its_own(expert_tensor):
    """Else the norm of the gradient misses them, and the ranks' gradients are added."""
    model = torch.nn.Linear(2, 2)
    model.bias.allreduce = False  # an expert's under expert parallelism
    model.bias.sequence_parallel = True
    config = SimpleNamespace(expert_tensor_parallel_size=expert_tensor)
    _mark_expert_parameters(model, config)
    is_own = expert_tensor == 1
    assert getattr(model.bias, "tensor_model_parallel", False) == is_own
    assert model.bias.sequence_parallel != is_own
    assert not hasattr(model.weight, "tensor_model_parallel")
