from types import SimpleNamespace

import pytest

from benchmarks import train_gpu
from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.recipe import Recipe


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
        reduced = train_gpu.fitting_architecture(shape, recipe, 1, gib * 2**30, fused=True)
        layers.append(reduced.num_layers)
    assert 8 < layers[0] < 20 and layers[1] == 32
    with pytest.raises(UsageError, match="no layer fits into 4 GiB"):
        train_gpu.fitting_architecture(shape, recipe, 1, 4 * 2**30, fused=True)


def test_the_plan_of_a_known_gpu(tmp_path):
    overrides = [*train_gpu.PRECISIONS["fp8"], *train_gpu.LEAN]
    recipe = load(Recipe, train_gpu.write_recipe(tmp_path, "llama_3_8b"), overrides)
    shape = train_gpu.architecture("llama_3_8b", None)
    h200 = SimpleNamespace(device_name="NVIDIA H200", transformer_engine=True)
    planned = train_gpu.planned(shape, recipe, 1, h200)
    assert 5000 < planned["tokens_per_second_per_gpu"] < 20000
    assert 60 < planned["memory_gib"] < 139
    h200.device_name = "Another GPU"
    assert train_gpu.planned(shape, recipe, 1, h200) is None


def test_layers_of_pytorch_need_more_memory(tmp_path):
    path = train_gpu.write_recipe(tmp_path, "llama_3_8b")
    recipe = load(Recipe, path, train_gpu.PRECISIONS["bf16"])
    shape = train_gpu.architecture("llama_3_8b", None)
    fused, plain = (
        train_gpu.fitting_architecture(shape, recipe, 1, 80 * 2**30, fused=value).num_layers
        for value in (True, False)
    )
    assert 0 < plain < fused
