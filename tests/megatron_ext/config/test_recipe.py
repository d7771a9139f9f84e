import dataclasses

import pytest

from galen.errors import OutputConflictError, UsageError
from galen.recipe import dump, load
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe, from_run
from tests.conftest import ROOT

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
        (
            6,
            [
                "parallel.tensor_model_parallel_size=3",
                "parallel.sequence_parallel=true",
                "data.seq_length=513",
            ],
            2,
        ),
        (4, ["parallel.pipeline_model_parallel_size=2"], 2),
        (
            2,
            [
                "parallel.pipeline_model_parallel_size=2",
                "parallel.num_layers_in_first_pipeline_stage=19",
            ],
            1,
        ),
        (
            4,
            [
                "parallel.pipeline_model_parallel_size=4",
                "parallel.num_layers_in_last_pipeline_stage=6",
            ],
            1,
        ),
        (8, ["parallel.context_parallel_size=4"], 2),
        (
            2,
            [
                "parallel.pipeline_model_parallel_size=2",
                "parallel.virtual_pipeline_model_parallel_size=3",
            ],
            1,
        ),
        (2, ["training.rampup_batch_size=[4,4,100]"], 2),
        (2, ["parallel.context_parallel_size=2", "data.reset_attention_mask=true"], 1),
        (
            6,
            [
                "parallel.context_parallel_size=6",
                "parallel.cp_comm_type=a2a+p2p",
                "parallel.hierarchical_context_parallel_sizes=[3,2]",
                "data.seq_length=768",
            ],
            1,
        ),
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
            (
                "9 attention heads cannot be divided by parallel.tensor_model_parallel_size = 2;"
                " possible: 1, 3, 9"
            ),
        ),
        (9, ["parallel.tensor_model_parallel_size=9"], "3 key/value heads cannot be divided"),
        (
            4,
            ["parallel.pipeline_model_parallel_size=4"],
            "30 layers cannot be divided by parallel.pipeline_model_parallel_size = 4",
        ),
        (
            2,
            [
                "parallel.pipeline_model_parallel_size=2",
                "parallel.num_layers_in_first_pipeline_stage=30",
            ],
            "0 are left for 1 other stages",
        ),
        (
            1,
            ["parallel.num_layers_in_first_pipeline_stage=3"],
            "needs pipeline_model_parallel_size",
        ),
        (
            1,
            ["training.cpu_offloading_num_layers=30"],
            "= 30 must be less than the 30 layers of the model",
        ),
        (
            3,
            ["parallel.tensor_model_parallel_size=3", "parallel.use_sharp=true"],
            "parallel.use_sharp needs data parallelism",
        ),
        (
            3,
            ["parallel.pipeline_model_parallel_size=2"],
            (
                "the number of processes (3) must be a multiple of tensor x pipeline x context"
                " parallel size = 1 x 2 x 1 = 2; use 2 or 4 (galen pretrain --nproc-per-node, galen"
                " plan --gpus), or change parallel.pipeline_model_parallel_size"
            ),
        ),
        (
            8,
            [],
            (
                "training.global_batch_size = 8 must be a multiple of micro_batch_size x"
                " data-parallel size = 2 x 8 = 16; change it, training.micro_batch_size or the"
                " number of processes"
            ),
        ),
        (1, ["data.seq_length=9000"], "longer than the 8192 positions"),
        (
            1,
            ["training.fp8_format=hybrid", "data.seq_length=500"],
            (
                "training.fp8_format needs multiples of 16: the number of tokens in a micro-batch"
                " of one rank is 1000; change the layout"
            ),
        ),
        (
            3,
            ["parallel.tensor_model_parallel_size=3", "parallel.sequence_parallel=true"],
            "512 tokens in a sequence",
        ),
        (
            2,
            [
                "parallel.pipeline_model_parallel_size=2",
                "parallel.virtual_pipeline_model_parallel_size=2",
            ],
            "a pipeline stage's 15 layers",
        ),
        (
            2,
            [
                *(
                    "parallel.pipeline_model_parallel_size=2",
                    "parallel.virtual_pipeline_model_parallel_size=3",
                ),
                "training.global_batch_size=6",
            ],
            "micro-batches in multiples of its 2 stages; a batch of 6 gives 3",
        ),
        (
            3,
            ["parallel.context_parallel_size=3"],
            "cannot be divided by 2 x parallel.context_parallel_size = 6",
        ),
        (
            2,
            ["parallel.context_parallel_size=2", "parallel.cp_comm_type=a2a"],
            (
                "a2a cannot divide the model's 9 attention heads among tensor-parallel size x"
                " exchanging processes = 1 x 2; use p2p or all_gather"
            ),
        ),
        (
            4,
            [
                "parallel.context_parallel_size=4",
                "parallel.cp_comm_type=a2a+p2p",
                "parallel.hierarchical_context_parallel_sizes=[2,2]",
            ],
            "a2a+p2p cannot divide the model's 9 attention heads",
        ),
        (
            2,
            ["parallel.context_parallel_size=2", "parallel.cp_comm_type=[p2p,all_gather]"],
            "parallel.cp_comm_type lists 2 layers, the model has 30",
        ),
        (
            4,
            ["training.rampup_batch_size=[4,4,100]"],
            "training.rampup_batch_size: the batch size = 4 must be a multiple",
        ),
        (
            2,
            ["parallel.context_parallel_size=4"],
            "context parallel size = 1 x 1 x 4 = 4; use 4 (galen pretrain",
        ),
        (
            2,
            [
                "parallel.pipeline_model_parallel_size=2",
                "training.recompute_granularity=full",
                "training.recompute_method=block",
                "training.recompute_num_layers=16",
            ],
            "training.recompute_num_layers = 16 is more than the 15 layers",
        ),
        (
            1,
            ["training.recompute_granularity=full", "training.recompute_num_layers=4"],
            "groups of 4 do not divide the 30 layers",
        ),
        (
            2,
            [
                *(
                    "parallel.pipeline_model_parallel_size=2",
                    "parallel.num_layers_in_first_pipeline_stage=18",
                ),
                *("training.recompute_granularity=full", "training.recompute_num_layers=9"),
            ],
            (
                "groups of 9 do not divide the 12 layers of a pipeline stage; possible: 1, 2, 3, 4,"
                " 6, 12"
            ),
        ),
    ],
)
def test_impossible_layouts_say_why(recipe, processes, overrides, message):
    with pytest.raises(UsageError) as error:
        check_layout(recipe(*overrides), SHAPE, processes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("comm_type", "refused"),
    [("null", True), ("p2p", True), ("all_gather", False), ("[" + 29 * "a2a," + "p2p]", True)],
)
def test_a_sliding_window_excludes_rings(recipe, comm_type, refused):
    shape = dataclasses.replace(SHAPE, window_size=256, num_attention_heads=8, num_query_groups=2)
    run = recipe("parallel.context_parallel_size=2", f"parallel.cp_comm_type={comm_type}")
    if refused:
        with pytest.raises(UsageError, match=r"window of 256 tokens .* p2p .* use all_gather or"):
            check_layout(run, shape, 2)
    else:
        assert check_layout(run, shape, 2) == 1


def test_layers_without_a_window_may_exchange_in_rings(recipe):
    changes = {"window_size": 256, "num_attention_heads": 8, "num_query_groups": 2}
    comm_type = "[" + 29 * "a2a," + "p2p]"
    run = recipe("parallel.context_parallel_size=2", f"parallel.cp_comm_type={comm_type}")
    pattern = dataclasses.replace(SHAPE, **changes, window_attn_skip_freq=(1,) * 29 + (0,))
    assert check_layout(run, pattern, 2) == 1


@pytest.mark.parametrize(
    ("overrides", "multiple"),
    [
        ("", 1),
        ("parallel.context_parallel_size=4", 1),
        ("data.reset_attention_mask=true", 1),
        ("data.reset_attention_mask=true parallel.context_parallel_size=4", 8),
        ("data.reset_attention_mask=true data.pad_documents_to_multiple_of=16", 16),
    ],
)
def test_documents_are_padded_as_context_parallelism_needs(recipe, overrides, multiple):
    assert recipe(*overrides.split()).document_multiple == multiple


@pytest.mark.parametrize(
    ("fp8_recipe", "changes", "message"),
    [
        ("tensorwise", {"ffn_hidden_size": 1512}, "16: the ffn_hidden_size / 3 is 504"),
        ("tensorwise", {"hidden_size": 584}, "16: the hidden_size is 584"),
        ("mxfp8", {"ffn_hidden_size": 1488}, "32: the ffn_hidden_size / 3 is 496"),
    ],
)
def test_dimensions_without_fp8_kernels_are_refused(recipe, fp8_recipe, changes, message):
    run = recipe(
        "training.fp8_format=hybrid",
        f"training.fp8_recipe={fp8_recipe}",
        "parallel.tensor_model_parallel_size=3",
    )
    assert check_layout(run, SHAPE, 3) == 1
    with pytest.raises(UsageError, match=message):
        check_layout(run, dataclasses.replace(SHAPE, **changes), 3)


def test_a_window_that_no_sequence_exceeds_is_left_out():
    windowed = dataclasses.replace(SHAPE, window_size=4096)
    assert windowed.without_idle_window(4096) == SHAPE
    assert windowed.without_idle_window(4097) == windowed
    assert SHAPE.without_idle_window(4096) == SHAPE
    pattern = dataclasses.replace(windowed, window_attn_skip_freq=(1, 0) * 15)
    assert pattern.without_idle_window(4096) == SHAPE
    assert pattern.without_idle_window(4097) == pattern
    # the layers with a window keep their rotary base
    local = dataclasses.replace(pattern, local_rotary_base=1e3)
    idle = dataclasses.replace(local, window_size=None)
    assert local.without_idle_window(4096) == idle
    assert idle.num_window_layers == 0


def test_attention_flops_count_the_tokens_in_the_window():
    length, window = 64, 16
    attended = sum(min(position, window) for position in range(length))
    windowed = dataclasses.replace(SHAPE, window_size=window)
    flops = windowed.attention_flops_per_token(length)
    assert flops == pytest.approx(12 * SHAPE.query_size * attended / length, rel=0.02)
    full = SHAPE.attention_flops_per_token(length)
    pattern = dataclasses.replace(windowed, window_attn_skip_freq=(1, 1, 0) * 10)
    assert pattern.attention_flops_per_token(length) == pytest.approx((2 * flops + full) / 3)
    assert windowed.attention_flops_per_token(window) == SHAPE.attention_flops_per_token(window)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_attn_skip_freq": (1, 0)}, "lists 2 layers, num_layers is 30"),
        ({"window_attn_skip_freq": (1, 0) * 15}, "needs window_size or local_rotary_base"),
        ({"local_rotary_base": 1e4}, "local_rotary_base needs window_attn_skip_freq"),
        ({"qk_layernorm": True, "full_width_qk_norm": True}, "exclude each other"),
    ],
)
def test_properties_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHAPE, **changes)


OFFLOAD = "training.fine_grained_activation_offloading=true training.offload_modules"
LEAN_FP8 = (
    "optimizer.use_precision_aware_optimizer=true training.fp8_format=hybrid"
    " training.fp8_recipe=tensorwise training.fp8_param_gather=true"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lr_warmup_iters=10",
            (
                "optimizer.lr_warmup_iters (10) must be less than training.train_iters (10); set"
                " optimizer.lr_warmup_iters to at most 9, or training.train_iters to at least 11"
            ),
        ),
        ("optimizer.min_lr=1", "must not exceed optimizer.lr"),
        (
            "parallel.sequence_parallel=true",
            "needs parallel.tensor_model_parallel_size of at least 2",
        ),
        ("parallel.overlap_param_gather=true", "needs parallel.overlap_grad_reduce"),
        ("training.precision=fp8", "'bf16' or 'fp32'"),
        ("parallel.cp_comm_type=a2a", "needs parallel.context_parallel_size of at least 2"),
        (
            "parallel.context_parallel_size=4 parallel.cp_comm_type=a2a+p2p",
            "product is parallel.context_parallel_size = 4; it is None",
        ),
        (
            (
                "parallel.context_parallel_size=4 parallel.cp_comm_type=a2a+p2p"
                " parallel.hierarchical_context_parallel_sizes=[4,1]"
            ),
            "each at least 2, whose product is parallel.context_parallel_size = 4; it is [4, 1]",
        ),
        (
            "parallel.hierarchical_context_parallel_sizes=[2,2]",
            "needs parallel.cp_comm_type: a2a+p2p",
        ),
        ("data.pad_documents_to_multiple_of=4", "needs data.reset_attention_mask: true"),
        (
            (
                "data.pad_documents_to_multiple_of=4 data.reset_attention_mask=true"
                " parallel.context_parallel_size=4"
            ),
            "= 4 must be a multiple of 2 x parallel.context_parallel_size = 8",
        ),
        (
            "data.pad_documents_to_multiple_of=24 data.reset_attention_mask=true",
            "data.seq_length = 512 must be a multiple of data.pad_documents_to_multiple_of = 24",
        ),
        ("training.train_iters=0", "greater than or equal to 1"),
        ("parallel.tensor_parallel=2", "did you mean"),
        (
            "parallel.virtual_pipeline_model_parallel_size=2",
            "needs parallel.pipeline_model_parallel_size of at least 2",
        ),
        ("parallel.tp_comm_overlap=true", "needs parallel.sequence_parallel"),
        (
            (
                "parallel.tp_comm_overlap=true parallel.sequence_parallel=true"
                " parallel.tensor_model_parallel_size=3 training.precision=fp32"
            ),
            "parallel.tp_comm_overlap needs training.precision: bf16",
        ),
        ("parallel.tp_comm_overlap_cfg=f.yaml", "needs parallel.tp_comm_overlap: true"),
        ("parallel.ddp_bucket_size=9", "ddp_bucket_size needs parallel.overlap_grad_reduce: true"),
        (
            "optimizer.grad_reduce_in_bf16=true training.precision=fp32",
            "optimizer.grad_reduce_in_bf16 needs training.precision: bf16",
        ),
        (
            "optimizer.grad_reduce_in_bf16=true optimizer.use_precision_aware_optimizer=true",
            "set optimizer.main_grads_dtype: bf16 instead",
        ),
        (
            "optimizer.ddp_param_name_patterns_for_fp32_local_accumulation=[all]",
            "needs optimizer.grad_reduce_in_bf16: true; without it all gradients are accumulated"
            " in fp32",
        ),
        (
            "optimizer.ddp_reduce_scatter_with_fp32_accumulation=true",
            "needs bf16 gradients (optimizer.grad_reduce_in_bf16, or",
        ),
        (
            "training.cpu_offloading_num_layers=2 parallel.pipeline_model_parallel_size=2",
            "needs parallel.pipeline_model_parallel_size: 1; use",
        ),
        (
            "training.cpu_offloading_num_layers=2 training.recompute_granularity=full",
            "is incompatible with training.recompute_granularity",
        ),
        (
            "training.cpu_offloading_num_layers=2 training.attention_backend=local",
            "is incompatible with training.attention_backend: local",
        ),
        ("training.offload_modules=[qkv_linear]", "needs training.fine_grained_activation_offl"),
        ("training.fine_grained_activation_offloading=true", "needs training.offload_modules, for"),
        (f"{OFFLOAD}=[attn_proj]", "attn_proj needs core_attn"),
        (f"{OFFLOAD}=[mlp_norm]", "'core_attn', 'attn_proj' or 'qkv_linear'"),
        (
            f"{OFFLOAD}=[core_attn] training.recompute_granularity=full",
            "is incompatible with training.recompute_granularity: full",
        ),
        (
            f"{OFFLOAD}=[core_attn] training.recompute_granularity=selective"
            " training.recompute_modules=[core_attn]",
            "training.offload_modules and recompute_modules both name core_attn",
        ),
        (
            f"{OFFLOAD}=[core_attn] training.cpu_offloading_num_layers=2",
            "is incompatible with training.fine_grained_activation_offloading; set it to 0",
        ),
        ("training.fp8_param_gather=true", "training.fp8_param_gather needs training.fp8_format"),
        ("training.fp8_format=hybrid training.precision=fp32", "needs training.precision: bf16"),
        (
            "training.fp8_format=hybrid training.first_last_layers_bf16=true",
            "is incompatible with fp8_recipe: delayed",
        ),
        (
            "training.fp8_format=hybrid training.fp8_recipe=mxfp8 training.fp8_param_gather=true",
            "training.fp8_param_gather with fp8_recipe: mxfp8 is not supported",
        ),
        ("training.recompute_num_layers=2", "need training.recompute_granularity: full"),
        ("training.recompute_modules=[mlp]", "needs training.recompute_granularity: selective"),
        ("training.recompute_modules=[layernorm]", "'core_attn', 'mlp'"),
        (
            "training.recompute_granularity=selective",
            "selective needs training.recompute_modules, for example [mlp]",
        ),
        (
            "training.cross_entropy_loss_fusion=true training.precision=fp32",
            "training.cross_entropy_loss_fusion needs training.precision: bf16",
        ),
        (
            (
                "parallel.tp_comm_overlap=true parallel.sequence_parallel=true"
                " parallel.tensor_model_parallel_size=3 training.fp8_format=hybrid"
                " training.fp8_recipe=blockwise"
            ),
            "parallel.tp_comm_overlap is incompatible with training.fp8_recipe: blockwise",
        ),
        ("optimizer.exp_avg_dtype=bf16", "needs optimizer.use_precision_aware_optimizer"),
        (
            "optimizer.use_precision_aware_optimizer=true training.precision=fp32",
            "needs training.precision: bf16",
        ),
        (
            "optimizer.optimizer_cpu_offload=true",
            "optimizer.optimizer_cpu_offload needs optimizer.use_precision_aware_optimizer",
        ),
        (
            f"{LEAN_FP8} training.fp8_recipe=delayed",
            "are incompatible with training.fp8_recipe: delayed: the optimizer would start",
        ),
        (
            f"{LEAN_FP8} optimizer.main_params_dtype=fp16",
            "are incompatible with optimizer.main_params_dtype: fp16: the optimizer would start",
        ),
        (
            f"{LEAN_FP8} optimizer.optimizer_cpu_offload=true",
            "are incompatible with optimizer.optimizer_cpu_offload: the optimizer would start",
        ),
        (
            "training.keep_every_n_steps=1500",
            "training.keep_every_n_steps (1500) must be a multiple of training.save_interval"
            " (1000)",
        ),
        ("optimizer.overlap_cpu_optimizer_d2h_h2d=true", "needs optimizer.optimizer_cpu_offload"),
        ("training.rampup_batch_size=[8,2,100]", "start less than training.global_batch_size (8)"),
        (
            "training.rampup_batch_size=[4,3,100]",
            "the difference must be a multiple of the increment",
        ),
        ("optimizer.lr_decay_style=WSD", "lr_wsd_decay_iters need each other"),
        (
            (
                "optimizer.lr_decay_style=WSD optimizer.lr_wsd_decay_iters=8"
                " optimizer.lr_warmup_iters=3"
            ),
            "are more than the 10 steps",
        ),
        (
            "optimizer.lr_decay_iters=3 optimizer.lr_warmup_iters=3",
            "must be less than optimizer.lr_decay_iters (3)",
        ),
        ("data.validation=[]", "set training.eval_iters to 0"),
        ("data.sources.a.train=[x] data.sources.a.weight=1", "and not both"),
        (
            "data.phases=[{start_step: 3, weights: {a: 1}}]",
            "names 'a', which is not in data.sources (none)",
        ),
    ],
)
def test_wrong_values_are_named(recipe, override, message):
    with pytest.raises(UsageError) as error:
        recipe(*override.split(" ") if "phases" not in override else [override])
    assert message in str(error.value)


def refused_combinations():
    """The overrides in the table of the documentation, one list for each row."""
    text = (ROOT / "docs/pretraining/layouts.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| refused together | reason |\n|---|---|\n")
    rows = table.partition("\n\n")[0].splitlines()
    return [row.split("`")[1].split(" ") for row in rows]


@pytest.mark.parametrize("overrides", refused_combinations(), ids=lambda words: words[-1])
def test_the_documented_combinations_are_refused(recipe, overrides):
    base = ["parallel.tensor_model_parallel_size=3", "parallel.sequence_parallel=true"]
    recipe(*base, *overrides[:-1])
    with pytest.raises(UsageError):
        recipe(*base, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["profile.steps=[0,2]"], r"profile.steps = \[0, 2\] must be \[first, last\] with 1 <="),
        (["profile.steps=[3,2]"], "first <= last"),
        (["profile.steps=[3,11]"], r"last <= training.train_iters \(10\)"),
        (["profile.ranks=[0]"], "profile.steps"),
        (
            [
                "profile.steps=[1,2]",
                "profile.use_pytorch_profiler=false",
                "profile.with_stack=true",
            ],
            "profile.with_stack needs profile.use_pytorch_profiler: true",
        ),
    ],
)
def test_impossible_profiles_are_refused(recipe, overrides, message):
    with pytest.raises(UsageError, match=message):
        recipe(*overrides)


def test_profiled_ranks_must_exist(recipe):
    run = recipe("profile.steps=[1,10]", "profile.ranks=[1,2]")
    with pytest.raises(UsageError, match=r"profile.ranks names rank 2; the run has ranks 0 to 1"):
        check_layout(run, SHAPE, 2)


SOURCES = [
    "data.train=[]",
    "data.validation=[]",
    "data.sources={a: {train: [x], validation: [y], weight: 2}, b: {train: [z], weight: 1}}",
]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.phases=[{start_step: 5, weights: {a: 1}}, {start_step: 5, weights: {b: 1}}]"],
            "must be more than the one before it (5)",
        ),
        (
            ["data.phases=[{start_step: 10, weights: {a: 1}}]"],
            "must be less than training.train_iters (10)",
        ),
        (["data.phases=[{start_step: 5, weights: {}}]"], "data.phases.0.weights must be above 0"),
        (["data.sources.a.wieght=1"], "did you mean 'weight'?"),
        (["data.sources.b.weight=-1"], "greater than or equal to 0"),
        (["data.sources.a.weight=0"], "all sources with validation files have weight 0"),
        (
            ["data.sources.a.weight=0", "data.sources.b.weight=0"],
            "all sources with train files have weight 0",
        ),
    ],
)
def test_wrong_blends_are_named(recipe, overrides, message):
    with pytest.raises(UsageError) as error:
        recipe(*SOURCES, *overrides)
    assert message in str(error.value)


def test_a_blend_lists_its_files(recipe):
    data = recipe(*SOURCES).data
    assert (data.train_prefixes, data.validation_prefixes) == (["x", "z"], ["y"])


def test_sizes_of_smollm2():
    assert SHAPE.parameters == 134_515_008  # what transformers counts
    assert SHAPE.padded_vocab_size() == 49152
    assert SHAPE.padded_vocab_size(tensor_parallel=9) == 49536
    # 6 N + 6 L h s, with the output layer (tied) among N
    assert SHAPE.flops_per_token(512) == 6 * 134_515_008 + 6 * 30 * 576 * 512


def test_a_run_folder_of_another_version_names_the_fix(tmp_path, recipe):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe()).replace("training:\n", "training:\n  renamed: 1\n"))
    with pytest.raises(OutputConflictError) as error:
        from_run(path)
    assert "unknown key 'training.renamed'); resume it with the version" in str(error.value)
