import dataclasses

import pytest
from packaging.version import Version

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training
from megatron_ext.config.sink_checks import check_sinks, engine_problems

SINKS = Architecture(
    family="gpt_oss",
    num_layers=2,
    hidden_size=64,
    ffn_hidden_size=96,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=16,
    vocab_size=300,
    max_position_embeddings=512,
    rotary_base=10000.0,
    layernorm_epsilon=1e-5,
    share_embeddings_and_output_weights=False,
    softmax_type="learnable",
)
PLAIN = dataclasses.replace(SINKS, softmax_type="vanilla")
NEWEST = Version("2.20"), 92100


def recipe(*, packed=False, context=1, communication=None, **training):
    return Recipe(
        output="runs/none",
        model=Model(checkpoint="none"),
        data=Data(train=["none"], seq_length=64, reset_attention_mask=packed),
        training=Training(
            train_iters=1, micro_batch_size=1, global_batch_size=1, eval_iters=0, **training
        ),
        optimizer=Optimizer(lr=1e-4),
        parallel=Parallel(context_parallel_size=context, cp_comm_type=communication),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_backend": "flash"}, "attention_backend: flash does not support"),
        ({"context": 2}, r"cp_comm_type: p2p \(p2p is the default\) does not support"),
        ({"context": 2, "communication": ["a2a", "p2p"]}, "cp_comm_type: p2p"),
    ],
)
def test_settings_that_no_platform_supports(options, message):
    with pytest.raises(UsageError, match=message):
        check_sinks(recipe(**options), SINKS)
    check_sinks(recipe(**options), PLAIN)


@pytest.mark.parametrize(
    ("options", "engine", "message"),
    [
        ({}, (Version("2.7"), 92100), "need Transformer Engine 2.8"),
        ({"packed": True}, (Version("2.12"), 92100), "needs Transformer Engine 2.13"),
        ({"packed": True}, (Version("2.13"), 91700), "cuDNN 9.18 or later"),
        ({"deterministic_mode": True}, NEWEST, "needs training.attention_backend: unfused"),
        ({"context": 2, "communication": "all_gather"}, NEWEST, "all_gather with the model's"),
    ],
)
def test_settings_that_need_other_kernels(options, engine, message):
    (problem,) = engine_problems(recipe(**options), SINKS, *engine)
    assert message in problem
    assert not engine_problems(recipe(**options), PLAIN, *engine)
    assert not engine_problems(recipe(**options, attention_backend="local"), SINKS, *engine)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"packed": True},
        {"context": 2, "communication": "a2a"},
        {"deterministic_mode": True, "attention_backend": "unfused"},
    ],
)
def test_settings_that_are_supported(options):
    check_sinks(recipe(**options), SINKS)
    assert not engine_problems(recipe(**options), SINKS, *NEWEST)
