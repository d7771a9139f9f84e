import dataclasses
import json
import math

import pytest
from pydantic import TypeAdapter

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.rope import Rope, RopeScaling, Yarn
from megatron_ext.config.run_architecture import architecture_from_model, with_rope
from tests.megatron_ext.config.test_recipe import SHAPE

YARN = Yarn(factor=8.0, original_max_position_embeddings=8192)


def load_rope(tmp_path, *overrides):
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps(SHAPE.to_json()))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: out\nmodel: {{checkpoint: none, architecture: {shape}}}\n"
        "data: {train: [t], validation: [v], seq_length: 65536}\n"
        "training: {train_iters: 1, global_batch_size: 1}\noptimizer: {lr: 1e-3}\n"
    )
    return load(Recipe, recipe, [f"model.rope.{override}" for override in overrides])


def test_yarn_extends_the_positions_of_the_checkpoint(tmp_path):
    recipe = load_rope(tmp_path, "rope_scaling={rope_type: yarn, factor: 8}")
    architecture = architecture_from_model(recipe.model)
    assert architecture == dataclasses.replace(SHAPE, yarn=YARN, max_position_embeddings=65536)
    check_layout(recipe, architecture, 1)
    # a second stage scales from the original positions, too
    scaling = RopeScaling(rope_type="yarn", factor=16)
    again = with_rope(architecture, Rope(rope_scaling=scaling))
    assert again.yarn == dataclasses.replace(YARN, factor=16.0)
    assert again.max_position_embeddings == 131072
    removed = Rope(rope_scaling=RopeScaling(rope_type="default"), max_position_embeddings=8192)
    assert with_rope(again, removed) == SHAPE


def test_a_rotary_base_and_llama3_scaling_replace_the_checkpoints(tmp_path):
    recipe = load_rope(tmp_path, "rotary_base=8e6", "max_position_embeddings=65536")
    assert architecture_from_model(recipe.model) == dataclasses.replace(
        SHAPE, rotary_base=8e6, max_position_embeddings=65536
    )
    scaling = RopeScaling(rope_type="llama3", factor=32)
    changed = with_rope(SHAPE, Rope(rope_scaling=scaling, max_position_embeddings=131072))
    assert (changed.rope_scaling_factor, changed.yarn) == (32.0, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rope_scaling={rope_type: longrope, factor: 2}"], "'llama3' or 'yarn'"),
        (["rope_scaling={rope_type: dynamic, factor: 2}"], "rope_scaling.rope_type: Input"),
        (["rope_scaling={rope_type: yarn}"], "rope_scaling: factor is required"),
        (["rope_scaling={rope_type: default, factor: 2}"], "factor has no effect"),
        (["rope_scaling={rope_type: llama3, factor: 2, beta_fast: 3}"], "beta_fast needs"),
        (
            ["rope_scaling={rope_type: llama3, factor: 2, original_max_position_embeddings: 4096}"],
            r"4096 is not supported by Megatron Core.*only 8192",
        ),
        (["rope_scaling={rope_type: yarn, factor: 0.5}"], "greater than 1"),
        (["rotary_base=-1"], "rotary_base"),
    ],
)
def test_unsupported_options_are_refused(tmp_path, overrides, message):
    with pytest.raises(UsageError, match=message):
        load_rope(tmp_path, *overrides)


def test_a_scaling_without_further_positions_is_refused(tmp_path):
    recipe = load_rope(tmp_path, "rope_scaling={rope_type: llama3, factor: 8}")
    with pytest.raises(UsageError, match=r"8192 positions.*set model.rope.max_position_embeddings"):
        architecture_from_model(recipe.model)


def test_longer_sequences_name_the_key(tmp_path):
    recipe = load_rope(tmp_path, "rotary_base=1e6")
    with pytest.raises(UsageError, match=r"8192 positions of the model; .*set model\.rope"):
        check_layout(recipe, architecture_from_model(recipe.model), 1)


def test_context_parallelism_divides_the_original_positions(tmp_path):
    options = "{rope_type: yarn, factor: 8, original_max_position_embeddings: 8190}"
    recipe = load_rope(tmp_path, f"rope_scaling={options}", "max_position_embeddings=65536")
    recipe.parallel.context_parallel_size = 2
    with pytest.raises(UsageError, match="8190 of the model's YaRN scaling must be a multiple"):
        check_layout(recipe, architecture_from_model(recipe.model), 2)


def test_only_scaled_architectures_have_the_field():
    assert "yarn" not in SHAPE.to_json()
    scaled = dataclasses.replace(SHAPE, yarn=dataclasses.replace(YARN, attention_factor=1.5))
    written = json.loads(json.dumps(scaled.to_json()))
    assert TypeAdapter(Architecture).validate_python(written) == scaled
    with pytest.raises(ValueError, match="exclude each other"):
        dataclasses.replace(scaled, rope_scaling_factor=8.0)


@pytest.mark.parametrize("attention_factor", [None, 1.0, 1.5])
def test_the_attention_factor_reaches_the_core(attention_factor):
    from megatron.core.models.common.embeddings import yarn_rotary_pos_embedding

    yarn = dataclasses.replace(YARN, attention_factor=attention_factor)
    shape = dataclasses.replace(SHAPE, yarn=yarn)
    # Transformer Engine's fused kernel would leave the factor out
    config = shape.transformer_config(apply_rope_fusion=attention_factor != 1.0)
    assert not config.apply_rope_fusion
    actual = yarn_rotary_pos_embedding._yarn_get_concentration_factor_from_config(config)
    expected = 0.1 * math.log(8) + 1 if attention_factor is None else attention_factor
    assert actual == pytest.approx(expected, rel=1e-15)


def test_scaled_queries_limit_the_sequence_length(tmp_path):
    """Ministral 3 multiplies queries by 1 up to YaRN's original positions."""
    ministral = dataclasses.replace(
        SHAPE, yarn=YARN, llama_4_scaling_beta=0.1, max_position_embeddings=65536
    )
    recipe = load_rope(tmp_path)
    with pytest.raises(UsageError, match=r"65536 tokens .* use at most 8192"):
        check_layout(recipe, ministral, 1)
    data = dataclasses.replace(recipe.data, seq_length=8192)
    check_layout(dataclasses.replace(recipe, data=data), ministral, 1)
    with pytest.raises(UsageError, match=r"model\.rope\.rope_scaling is not supported"):
        with_rope(ministral, Rope(rope_scaling=RopeScaling(rope_type="yarn", factor=16)))
    with pytest.raises(ValueError, match="llama_4_scaling_beta needs yarn"):
        dataclasses.replace(ministral, yarn=None)
