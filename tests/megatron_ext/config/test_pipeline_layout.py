"""Layouts of pipelines: the core reads them the same way, and mistakes show before the start."""

import pytest
from megatron.core.transformer.enums import LayerType
from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config import pipeline_layout
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import parallel_groups
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT

BALANCED_70B = "Et*2|(t*2|)*34,t*3|(t*2|)*3,tL"  # of Megatron-Bridge


def options(layout, stages, chunks="null"):
    return [
        f"parallel.pipeline_model_parallel_size={stages}",
        f"parallel.virtual_pipeline_model_parallel_size={chunks}",
        f"parallel.pipeline_model_parallel_layout={layout}",
    ]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.mark.parametrize(
    ("layout", "stages", "chunks"),
    [
        (BALANCED_70B, 8, 5),
        ("Et*17|t*13L", 2, "null"),
        ("E|(t|)*30,L", 4, 8),
        ("E,t*7|(t*8|t*7|)*1t*8,L", 2, 2),
    ],
)
def test_the_core_reads_the_same_layers(recipe, layout, stages, chunks):
    parallel = recipe(*options(layout, stages, chunks)).parallel
    core = PipelineParallelLayerLayout(layout, stages)
    expected = [[chunk.count(LayerType.decoder) for chunk in stage] for stage in core.layout]
    layers = core.flatten_layout.count(LayerType.decoder)
    core.validate_layer_layout(layers, None)
    assert pipeline_layout.chunk_layers(parallel, layers) == expected
    assert pipeline_layout.stage_layers(parallel, layers) == [sum(stage) for stage in expected]


def test_the_layout_reaches_the_model_configuration(recipe):
    run = recipe(*options("E|(t|)*30,L", 4, 8))
    check_layout(run, SHAPE, 4)
    config = SHAPE.transformer_config(**parallel_groups.model_options(run))
    assert config.pipeline_model_parallel_layout.get_num_layers_to_build(pp_rank=1) == 1
    assert config.virtual_pipeline_model_parallel_size == 8


@pytest.mark.parametrize(
    ("layout", "stages", "chunks", "message"),
    [
        ("Et*30|L", 1, "null", "needs parallel.pipeline_model_parallel_size of at least 2"),
        ("Et*15|tx|L", 2, "null", "'x' is unknown; use E"),
        ("Et*15|tmL", 2, "null", "'m' is unknown"),
        ("Et*|tL", 2, "null", r"'\*' is unknown"),
        ("Et*15|t*14|L", 2, "null", "has 3 model chunks, which must be a multiple of"),
        (
            "Et*10|t*10|t*5|t*5L",
            2,
            "null",
            "set parallel.virtual_pipeline_model_parallel_size to 2",
        ),
        ("Et*15|t*15L", 2, 2, "set parallel.virtual_pipeline_model_parallel_size to null"),
        ("Et*15||t*14|tL", 2, 2, r"model chunk 1 \(the first is 0\) is empty"),
        ("t*15|Et*15L", 2, "null", r"must begin with E \(embedding\) and end with L"),
        ("Et*15|t*15Lt", 2, "null", "and end with L"),
        ("EEt*15|t*15L", 2, "null", "have each once"),
        ("Et*99999999|tL", 2, "null", "repeats are limited to 1000"),
        ("E(((t*999)*999)*999)*9|tL", 2, "null", "more layers than any model|is unknown"),
    ],
)
def test_impossible_layouts(recipe, layout, stages, chunks, message):
    with pytest.raises(UsageError, match=message):
        recipe(*options(layout, stages, chunks))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (options("Et*15|t*14L", 2), r"has 29 layers \(t\), the model 30"),
        (options("Et*30|L", 2), r"pipeline stage 1 \(the first is 0\) has no layer"),
        (
            [
                *options("Et*10|t*20L", 2),
                "training.recompute_granularity=full",
                "training.recompute_num_layers=4",
            ],
            "groups of 4 do not divide the 10 layers",
        ),
    ],
)
def test_layouts_that_do_not_fit_the_model(recipe, overrides, message):
    with pytest.raises(UsageError, match=message):
        check_layout(recipe(*overrides), SHAPE, 2)


def test_one_way_to_divide_the_layers(recipe):
    first = "parallel.num_layers_in_first_pipeline_stage=14"
    with pytest.raises(UsageError, match="is incompatible with parallel"):
        recipe(*options("Et*15|t*15L", 2), first)
