import json

import pytest

from benchmarks import train_gpu
from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from tests.conftest import run


@pytest.mark.slow
def test_figures_are_consistent_on_a_cpu(tmp_path):
    output = tmp_path / "result.json"
    run(
        *(
            "benchmarks/train_gpu.py",
            "--model",
            "tiny",
            "--precision",
            "fp32",
            "--layers",
            "2",
            "--fit",
        ),
        *("--warm-up", "1", "--steps", "2", "--output", output, "--profile"),
    )
    result = json.loads(output.read_text())
    assert result["model"]["num_layers"] == 2
    # ln 300 = 5.7 for random weights
    assert len(result["losses"]) == 3 and all(5 < loss < 7 for loss in result["losses"])
    assert result["tokens_per_second_per_gpu"] * result["seconds_per_step"] == pytest.approx(8 * 32)
    assert any(entry["operation"] == "aten::mm" for entry in result["slowest"])
    assert sum(entry["fraction"] for entry in result["slowest"]) <= 1
    assert list((tmp_path / "result.profile").glob("rank_00000_steps_2-2.trace.json.gz"))
    # no look-up; causal attention of 2 layers
    flops = 6 * (result["model"]["parameters"] - 300 * 64) + 6 * 2 * 64 * 32
    assert result["model_tflops_per_gpu"] * 1e12 == pytest.approx(
        flops * result["tokens_per_second_per_gpu"]
    )


def test_a_model_is_reduced_to_the_layers_that_fit(tmp_path):
    layers = []
    for gib in (80, 140):
        recipe = load(
            Recipe,
            train_gpu.write_recipe(tmp_path, "llama_3_8b"),
            [*train_gpu.PRECISIONS["fp8"], *train_gpu.LEAN],
        )
        assert recipe.training.fp8_param_gather
        shape = train_gpu.architecture("llama_3_8b", None)
        reduced = train_gpu.fitting_architecture(shape, recipe, 1, gib * 2**30)
        layers.append(reduced.num_layers)
    assert 8 < layers[0] < 20 and layers[1] == 32
    with pytest.raises(UsageError, match="no layer fits into 4 GiB"):
        train_gpu.fitting_architecture(shape, recipe, 1, 4 * 2**30)
