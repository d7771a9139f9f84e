"""Bytes of weights and optimizer state in FP8 and with the precision-aware optimizer."""

import dataclasses

import pytest

from benchmarks.planner_fit import MODELS, groups
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import experts, memory_model, model_state
from megatron_ext.planner.gpus import GPUS
from tests.conftest import ROOT

LLAMA = MODELS["Llama 3 8B"]
MATRICES = 32 * LLAMA.layer_matrix_parameters
FP8 = ["training.fp8_format=hybrid", "training.fp8_recipe=tensorwise"]
GATHER = "training.fp8_param_gather=true"
PRECISION_AWARE = "optimizer.use_precision_aware_optimizer=true"
BF16_GRADIENTS = "optimizer.main_grads_dtype=bf16"


def run(*overrides):
    file = ROOT / "examples/pretrain/mmed_llama3_8b.yaml"
    return load(Recipe, file, ["training.precision=bf16", *overrides])


@pytest.mark.parametrize(
    ("overrides", "fp8_weights", "bytes_each"),
    [
        ([], 0, 2),
        # bf16, and rows and columns in FP8
        (FP8, MATRICES, 4),
        ([*FP8, GATHER], MATRICES, 2),
        ([*FP8, "training.first_last_layers_bf16=true"], MATRICES * 30 // 32, 4),
    ],
)
def test_fp8_weights_have_two_copies(overrides, fp8_weights, bytes_each):
    recipe = run(*overrides)
    others = model_state.stage_parameters(LLAMA, recipe, 0) - fp8_weights
    expected = 2 * others + bytes_each * fp8_weights
    assert model_state.weight_bytes(LLAMA, recipe, 0) == expected


@pytest.mark.parametrize(
    ("overrides", "state", "step"),
    [
        ([], 12, 0),
        # of a float32 weight, Adam keeps the half that the bf16 weight lacks
        ([PRECISION_AWARE], 10, 0),
        ([PRECISION_AWARE, BF16_GRADIENTS], 10, 0),
        ([PRECISION_AWARE, "optimizer.main_params_dtype=fp16"], 10, 0),
        ([PRECISION_AWARE, *FP8], 12, 0),
        ([PRECISION_AWARE, BF16_GRADIENTS, *FP8], 12, 4),
        ([PRECISION_AWARE, BF16_GRADIENTS, *FP8, "training.fp8_recipe=delayed"], 10, 0),
        ([PRECISION_AWARE, "optimizer.exp_avg_dtype=bf16", *FP8], 10, 0),
        (["training.precision=fp32"], 8, 0),
    ],
)
def test_bytes_of_the_optimizer(overrides, state, step):
    assert model_state.optimizer_bytes(run(*overrides)) == (state, step)


def test_unfused_attention_keeps_its_scores():
    recipe = run("training.attention_backend=unfused", "parallel.tensor_model_parallel_size=2")
    kept = memory_model.layer_activations(LLAMA, recipe)
    # two of 32 / 2 heads x 2 sequences x 2,048² in bf16
    assert kept["attention scores"] == 2 * 16 * 2 * 2048**2 * 2
    recompute = ["training.recompute_granularity=selective"]
    recompute += ["training.recompute_modules=[core_attn]", "training.attention_backend=unfused"]
    assert memory_model.layer_activations(LLAMA, run(*recompute))["attention scores"] == 0


def test_published_runs_fitted_into_their_gpus():
    beyond = {}
    for published in [*groups()["fitted"], *groups()["held out"]]:
        stages = memory_model.all_stages(published.architecture, published.recipe(), published.gpus)
        memory = max(stage.total for stage in stages) + memory_model.RESERVE
        if memory > GPUS[published.gpu].memory:
            beyond[published.source, published.model] = memory / 2**30
    assert beyond == {
        ("NeMo 24.07", "Nemotron-4 340B"): pytest.approx(80.9, abs=0.1),
        # with FSDP, which also divides weights and gradients
        ("Bridge 25.11", "Llama 3 8B"): pytest.approx(84.6, abs=0.1),
    }


QWEN = MODELS["Qwen3 30B-A3B"]


def experts_run(**parallel):
    (published, *_) = groups()["experts, fitted"]
    recipe = published.recipe()
    return dataclasses.replace(recipe, parallel=dataclasses.replace(recipe.parallel, **parallel))


def test_experts_are_divided_and_their_state_among_their_copies():
    """48 layers of 128 experts: 29.0B of 30.5B weights."""
    expert_weights = 48 * 128 * 3 * 2048 * 768
    dense = QWEN.parameters - expert_weights
    eight = experts_run(expert_model_parallel_size=8)
    assert model_state.stage_parameters(QWEN, eight, 0) == dense + expert_weights // 8
    # 16 replicas of the dense weights, two of the experts
    shard = model_state.optimizer_shard(QWEN, eight, 16, 0)
    assert shard == pytest.approx(dense / 16 + expert_weights / 8 / 2, abs=2)
    stages = experts_run(expert_model_parallel_size=8, pipeline_model_parallel_size=2)
    halves = [model_state.stage_parameters(QWEN, stages, stage) for stage in (0, 1)]
    assert sum(halves) == model_state.stage_parameters(QWEN, eight, 0)
    divided = experts_run(
        tensor_model_parallel_size=2,
        sequence_parallel=True,
        expert_tensor_parallel_size=2,
        expert_model_parallel_size=4,
    )
    router_and_norms = 48 * (QWEN.layer_router_parameters + QWEN.layer_norm_parameters) + 2048
    rank = (dense - router_and_norms) // 2 + router_and_norms + expert_weights // 8
    padding = 2 * 128 * 2048 // 2  # of both embeddings, to a multiple of 256 rows
    assert model_state.stage_parameters(QWEN, divided, 0) == rank + padding


def test_published_memory_of_experts(monkeypatch):
    """Rank 0 of the bf16 run on 16 H100 allocated 61.4 GB with alltoall (docs/planning.md)."""
    monkeypatch.setattr(experts, "IMBALANCE", 1.0)  # routing was balanced
    recipe = experts_run()
    precision_aware = dataclasses.replace(
        recipe.optimizer,
        grad_reduce_in_bf16=False,
        use_precision_aware_optimizer=True,
        main_grads_dtype="bf16",
    )
    recipe = dataclasses.replace(recipe, optimizer=precision_aware)
    (stage,) = memory_model.all_stages(QWEN, recipe, 16)
    assert stage.total / 1e9 == pytest.approx(61.4, rel=0.02)


def test_selective_recompute_of_experts():
    full, act, moe = (
        memory_model.layer_activations(QWEN, dataclasses.replace(experts_run(), training=training))
        for training in (
            experts_run().training,
            *(
                dataclasses.replace(
                    experts_run().training,
                    recompute_granularity="selective",
                    recompute_modules=[module],
                )
                for module in ("moe_act", "moe")
            ),
        )
    )
    assert {name for name in full if act[name] != full[name]} == {"expert product"}
    assert sum(moe.values()) == pytest.approx(
        sum(size for name, size in full.items() if "norm" in name or "quer" in name)
        + full["attention output"]
        + full["attention statistics"]
    )
    # the margin for the fullest rank
    assert full["dispatched tokens"] == 1.25 * 8 * 4096 * 2048 * 2


def test_8b_in_fp8_on_8_h100():
    """81 GiB with the former layout, counted by hand; 73.4 were planned with one copy."""
    layout = str(ROOT / "examples/pretrain/layouts/7b_h100_fp8.yaml")
    without_recompute = [
        "training.recompute_granularity=null",
        "training.recompute_method=null",
        "training.recompute_num_layers=null",
    ]
    overrides = ["data.seq_length=8192", "training.micro_batch_size=1", BF16_GRADIENTS]
    recipe = run(layout, *without_recompute, *overrides)
    (stage,) = memory_model.all_stages(LLAMA, recipe, 8)
    assert (stage.total + memory_model.RESERVE) / 2**30 == pytest.approx(81, abs=0.5)
    # float32 copies of an eighth of the gradients, not at the same time as activations
    assert stage.optimizer_step / 2**30 == pytest.approx(3.74, abs=0.01)
    assert stage.total == pytest.approx(
        stage.weights + stage.gradients + stage.optimizer + stage.activations + stage.logits
    )
