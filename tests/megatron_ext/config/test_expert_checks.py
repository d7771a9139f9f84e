"""Options for experts that do not fit the model or the processes are refused, with a remedy."""

import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT
from tests.megatron_ext.experts import ARCHITECTURE

EXPERT = "parallel.expert_model_parallel_size"
EXPERT_TENSOR = "parallel.expert_tensor_parallel_size"
TENSOR = ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]
SELECTIVE = "training.recompute_granularity=selective"
ENGINE = ["training.precision=bf16", "training.fp8_format=hybrid"]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        (4, [f"{EXPERT}=4"]),
        (4, [f"{EXPERT}=2", *TENSOR]),
        (2, [f"{EXPERT}=2", *TENSOR, f"{EXPERT_TENSOR}=1"]),
        (8, [f"{EXPERT}=4", "parallel.pipeline_model_parallel_size=2"]),
        (2, [f"{EXPERT}=2", "parallel.context_parallel_size=2"]),
        (1, [SELECTIVE, "training.recompute_modules=[core_attn,moe]"]),
    ],
)
def test_layouts_of_experts(recipe, processes, overrides):
    check_layout(recipe(*overrides), Architecture(**ARCHITECTURE), processes)


@pytest.mark.parametrize(
    ("processes", "overrides", "message"),
    [
        (3, [f"{EXPERT}=3"], "4 experts cannot be divided by .* = 3; possible: 1, 2, 4"),
        (2, [f"{EXPERT}=4"], "must be a multiple of expert tensor x expert x pipeline"),
        (2, TENSOR[:1], "needs parallel.sequence_parallel: true"),
        (4, [f"{EXPERT}=2", f"{EXPERT_TENSOR}=2"], "must be 1 or .*tensor_model_parallel_size = 1"),
        (2, [*TENSOR, f"{EXPERT_TENSOR}=1"], "needs parallel.expert_model_parallel_size of at"),
        (1, [SELECTIVE, "training.recompute_modules=[mlp]"], "mlp has no effect .* use moe"),
        (1, [SELECTIVE, "training.recompute_modules=[moe,moe_act]"], "list moe alone"),
        (
            1,
            [*ENGINE, SELECTIVE, "training.recompute_modules=[moe_act]"],
            "moe_act is incompatible with training.fp8_recipe: delayed",
        ),
    ],
)
def test_impossible_layouts_of_experts(recipe, processes, overrides, message):
    architecture = Architecture(**ARCHITECTURE)
    with pytest.raises(UsageError, match=message):
        check_layout(recipe(*overrides), architecture, processes)


def test_experts_with_biases_are_not_divided(recipe):
    properties = {"moe_shared_expert_intermediate_size": None, "moe_shared_expert_gate": False}
    biases = {"add_qkv_bias": True, "add_bias_linear": True}
    architecture = Architecture(**ARCHITECTURE | properties | biases)
    with pytest.raises(UsageError, match=r"cannot divide experts with biases: set .*: 1 and"):
        check_layout(recipe(*TENSOR), architecture, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{EXPERT}=2", f"{EXPERT} needs a mixture of experts"),
        (f"{EXPERT_TENSOR}=1", f"{EXPERT_TENSOR} needs a mixture of experts"),
        ("parallel.moe_token_dispatcher_type=allgather", "moe_token_dispatcher_type needs"),
        ("moe.moe_z_loss_coeff=1e-3", "the section moe needs a mixture of experts"),
    ],
)
def test_a_dense_model_has_no_options_for_experts(recipe, override, message):
    with pytest.raises(UsageError, match=message):
        check_layout(recipe(override), SHAPE, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("moe.moe_aux_loss_coeff=-1", "moe_aux_loss_coeff"),
        ("moe.moe_pad_expert_input_to_capacity=true", "needs moe.moe_expert_capacity_factor"),
        ("moe.moe_token_drop_policy=position", "needs moe.moe_expert_capacity_factor"),
        ("moe.moe_aux_loss_coeff=.inf", "moe.moe_aux_loss_coeff: Input should be a finite"),
        ("moe.moe_z_loss_coeff=.inf", "moe.moe_z_loss_coeff: Input should be a finite"),
    ],
)
def test_wrong_values_of_the_section(recipe, override, message):
    with pytest.raises(UsageError, match=message):
        recipe(override)
