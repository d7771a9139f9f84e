"""Every published recipe fits its model under every layout; its options reach Megatron's config."""

import itertools

import pytest
import torch

from benchmarks import shipped_layouts
from galen.recipe import load
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.run_architecture import architecture_from_model
from megatron_ext.hardware import parallel_groups
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.layout_search import estimate
from megatron_ext.training import optimizer
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples/pretrain"
SIZES = {
    # Llama-2-7B has 6,738,415,616 with 32,000 tokens; 17 more tokens, twice 4,096 wide
    "meditron_7b": ("7b", 6_738_554_880),
    "meditron_70b": ("70b", 68_976_926_720),  # Llama-2-70B has 68,976,648,192
    "mmedlm2_7b": ("7b", 7_737_708_544),
    "mmedlm2_1_8b": ("2b", 1_889_110_016),
    "mmed_llama3_8b": ("7b", 8_030_261_248),
    "mmed_llama3_70b": ("70b", 70_553_706_496),
    "biomistral_7b": ("7b", 7_241_740_288),
    "mmed_llama3_8b_64k": ("64k", 8_030_261_248),
    "qwen3_30b_a3b": ("30b_a3b", 30_532_122_624),
    "apertus_8b": ("7b", 8_053_338_176),
    "gpt_oss_20b": ("20b", 20_914_757_184),
    "gemma3_27b": ("27b", 27_009_346_304),  # without the vision tower
}
GPU_SPECS = {"h100": GPUS["h100-80gb"], "a100": GPUS["a100-80gb"], "h200": GPUS["h200"]}
GPU_COUNTS = {"2b": (8, 64), "7b": (8, 32), "70b": (64, 128)}
LAYOUTS = ("h100_bf16", "h100_fp8", "a100_bf16", "h200_bf16")
CASES = []
for _model, (_size, _) in SIZES.items():
    if _size == "64k":
        CASES += [(_model, "7b_h100_bf16_64k", _count) for _count in (8, 64)]
        continue
    if _size == "20b":
        CASES += [(_model, "20b_h100_bf16", _count) for _count in (8, 32)]
        continue
    if _size == "27b":
        CASES += [(_model, "27b_h100_bf16", _count) for _count in (32, 64)]
        continue
    if _size == "30b_a3b":
        CASES += [(_model, _layout, _count) for _layout, _count in shipped_layouts.EXPERT_RUNS]
        continue
    for _layout, _count in itertools.product(LAYOUTS, GPU_COUNTS[_size]):
        CASES.append((_model, f"{_size}_{_layout}", _count))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def load_with_layout(model, layout):
    return load(Recipe, EXAMPLES / f"{model}.yaml", [str(EXAMPLES / f"layouts/{layout}.yaml")])


@pytest.mark.parametrize("model", SIZES)
def test_the_architectures_are_the_published_models(model):
    recipe = load(Recipe, EXAMPLES / f"{model}.yaml")
    assert architecture_from_model(recipe.model).parameters == SIZES[model][1]


@pytest.mark.parametrize(("model", "layout", "gpus"), CASES)
def test_every_layout_fits(model, layout, gpus):
    recipe = load_with_layout(model, layout)
    shape = architecture_from_model(recipe.model)
    check_layout(recipe, shape, gpus)
    # the planner expects it to fit into that GPU's memory
    (gpu,) = [spec for name, spec in GPU_SPECS.items() if f"_{name}_" in layout]
    assert estimate(shape, recipe, gpus, gpu).fits
    options = parallel_groups.model_options(recipe)
    if shape.is_moe:
        options["moe_grouped_gemm"] = True  # as on CUDA; recompute of moe_act needs it
    config = shape.transformer_config(**options)
    assert config.tensor_model_parallel_size == recipe.parallel.tensor_model_parallel_size
    assert (
        config.virtual_pipeline_model_parallel_size
        == recipe.parallel.virtual_pipeline_model_parallel_size
    )
    assert config.params_dtype == torch.bfloat16
    if layout.endswith("fp8"):
        assert (config.fp8, config.fp8_recipe, config.fp8_param, config.first_last_layers_bf16) == (
            "hybrid",
            "tensorwise",
            True,
            True,
        )
    assert optimizer.data_parallel_config(recipe).fp8_param_gather == layout.endswith("fp8")
    # a replica sums the gradients of many micro-batches
    assert optimizer.data_parallel_config(recipe).grad_reduce_in_fp32
    if recipe.parallel.tp_comm_overlap:
        assert recipe.training.micro_batch_size * recipe.data.seq_length >= 4096


def test_the_documented_speed_and_memory_are_current():
    text = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    for run in shipped_layouts.runs():
        assert f"\n{shipped_layouts.cells(run)} " in text, (
            "insert the output of benchmarks/shipped_layouts.py"
        )


def test_the_table_of_expert_layouts_is_current():
    text = (ROOT / "docs/pretraining/layouts.md").read_text(encoding="utf-8")
    for run in shipped_layouts.runs():
        if run.model != shipped_layouts.EXPERT_RECIPE:
            continue
        (row,) = [line for line in text.splitlines() if f"| {run.gpus} | `{run.layout}`" in line]
        one = run.estimate()
        figures = f"| {one.memory / 2**30:.1f} | {one.tokens_per_second_per_gpu:,.0f} |"
        assert row.endswith(figures), f"{row}: {figures}"


def test_every_file_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*SIZES, "tiny"}
    assert {path.stem for path in (EXAMPLES / "layouts").glob("*.yaml")} == {
        layout for _, layout, _ in CASES
    }


def test_a_trial_run_of_the_demo_needs_one_override():
    recipe = load(Recipe, ROOT / "examples/demo/pretrain.yaml", ["training.train_iters=3"])
    assert recipe.optimizer.lr_warmup_iters < 3
