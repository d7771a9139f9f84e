import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.architecture import Architecture
from megatron_ext.recipe import Recipe, check_layout

SHAPE = Architecture(
    family="llama",
    num_layers=30,
    hidden_size=576,
    ffn_hidden_size=1536,
    num_attention_heads=9,
    num_query_groups=3,
    kv_channels=64,
    vocab_size=49152,
    max_position_embeddings=8192,
    rotary_base=100000,
    layernorm_epsilon=1e-5,
    share_embeddings_and_output_weights=True,
)
TEXT = """
output: out
model: {checkpoint: c}
data: {train: [t], validation: [v], seq_length: 512}
training: {train_iters: 10, micro_batch_size: 2, global_batch_size: 8}
optimizer: {lr: 1e-4}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.mark.parametrize(
    ("processes", "overrides", "expected"),
    [
        (1, [], 1),
        (4, [], 4),
        (6, ["parallel.tensor_model_parallel_size=3", "parallel.sequence_parallel=true", "data.seq_length=513"], 2),
        (4, ["parallel.pipeline_model_parallel_size=2"], 2),
        (2, ["parallel.pipeline_model_parallel_size=2", "parallel.num_layers_in_first_pipeline_stage=19"], 1),
        (4, ["parallel.pipeline_model_parallel_size=4", "parallel.num_layers_in_last_pipeline_stage=6"], 1),
    ],
)
def test_possible_layouts(recipe, processes, overrides, expected):
    assert check_layout(recipe(*overrides), SHAPE, processes) == expected


@pytest.mark.parametrize(
    ("processes", "overrides", "message"),
    [
        (
            2,
            ["parallel.tensor_model_parallel_size=2"],
            "9 attention heads cannot be divided by parallel.tensor_model_parallel_size = 2; possible: 1, 3, 9",
        ),
        (9, ["parallel.tensor_model_parallel_size=9"], "3 key/value heads cannot be divided"),
        (4, ["parallel.pipeline_model_parallel_size=4"], "30 layers cannot be divided by parallel.pipeline_model_parallel_size = 4"),
        (2, ["parallel.pipeline_model_parallel_size=2", "parallel.num_layers_in_first_pipeline_stage=30"], "0 are left for 1 other stages"),
        (1, ["parallel.num_layers_in_first_pipeline_stage=3"], "needs pipeline_model_parallel_size"),
        (3, ["parallel.pipeline_model_parallel_size=2"], "start a multiple of 2"),
        (8, [], "no multiple of micro_batch_size x data-parallel size = 2 x 8"),
        (1, ["data.seq_length=9000"], "longer than the 8192 positions"),
        (3, ["parallel.tensor_model_parallel_size=3", "parallel.sequence_parallel=true"], "512 tokens in a sequence"),
    ],
)
def test_impossible_layouts_say_why(recipe, processes, overrides, message):
    with pytest.raises(UsageError) as error:
        check_layout(recipe(*overrides), SHAPE, processes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr_warmup_iters=10", "must be less than training.train_iters"),
        ("optimizer.min_lr=1", "must not exceed optimizer.lr"),
        ("parallel.sequence_parallel=true", "needs parallel.tensor_model_parallel_size of at least 2"),
        ("parallel.overlap_param_gather=true", "needs parallel.overlap_grad_reduce"),
        ("training.precision=fp8", "'bf16' or 'fp32'"),
        ("training.train_iters=0", "greater than or equal to 1"),
        ("parallel.tensor_parallel=2", "did you mean"),
    ],
)
def test_wrong_values_are_named(recipe, override, message):
    with pytest.raises(UsageError) as error:
        recipe(override)
    assert message in str(error.value)


def test_sizes_of_smollm2():
    assert SHAPE.parameters == 134_515_008  # what transformers counts
    assert SHAPE.padded_vocab_size() == 49152
    assert SHAPE.padded_vocab_size(tensor_parallel=9) == 49536
    # 6 N + 6 L h s, with the output layer (tied) among N
    assert SHAPE.flops_per_token(512) == 6 * 134_515_008 + 6 * 30 * 576 * 512
