"""GPU-only options reach Megatron's configuration; the CPU platform refuses each by name."""

import dataclasses

import pytest
import torch
from megatron.core import utils as core_utils
from megatron.core.optimizer import OptimizerConfig
from megatron.core.transformer.enums import AttnBackend
from packaging.version import Version

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.training import optimizer
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["training.fp8_format=e4m3", "training.fp8_recipe=blockwise"],
            {"fp8": "e4m3", "fp8_recipe": "blockwise", "fp8_param": False},
        ),
        (
            ["training.fp8_format=hybrid", "training.fp8_recipe=mxfp8"],
            {"fp8": "hybrid", "fp8_recipe": "mxfp8"},
        ),
        (
            [
                "training.fp8_format=hybrid",
                "training.fp8_amax_history_len=16",
                "training.fp8_amax_compute_algo=most_recent",
            ],
            {
                "fp8_recipe": "delayed",
                "fp8_amax_history_len": 16,
                "fp8_amax_compute_algo": "most_recent",
            },
        ),
        (
            [
                *(
                    "training.fp8_format=hybrid",
                    "training.fp8_recipe=tensorwise",
                    "training.first_last_layers_bf16=true",
                ),
                *(
                    "training.num_layers_at_start_in_bf16=2",
                    "training.num_layers_at_end_in_bf16=3",
                    "training.fp8_param_gather=true",
                ),
            ],
            {
                "first_last_layers_bf16": True,
                "num_layers_at_start_in_bf16": 2,
                "num_layers_at_end_in_bf16": 3,
                "fp8_param": True,
            },
        ),
        (
            [
                "parallel.tensor_model_parallel_size=3",
                "parallel.sequence_parallel=true",
                "parallel.tp_comm_overlap=true",
            ],
            {"tp_comm_overlap": True, "sequence_parallel": True, "tensor_model_parallel_size": 3},
        ),
        (
            [
                "parallel.pipeline_model_parallel_size=2",
                "parallel.virtual_pipeline_model_parallel_size=3",
            ],
            {
                "virtual_pipeline_model_parallel_size": 3,
                "overlap_p2p_comm": True,
                "batch_p2p_comm": False,
            },
        ),
        (
            ["training.recompute_granularity=full"],
            {"recompute_method": "uniform", "recompute_num_layers": 1},
        ),
        (
            [
                "training.recompute_granularity=full",
                "training.recompute_method=block",
                "training.recompute_num_layers=4",
            ],
            {
                "recompute_granularity": "full",
                "recompute_method": "block",
                "recompute_num_layers": 4,
            },
        ),
        (
            [
                "training.recompute_granularity=selective",
                "training.recompute_modules=[core_attn,mlp]",
            ],
            {"recompute_granularity": "selective", "recompute_modules": ["core_attn", "mlp"]},
        ),
        (
            ["training.cpu_offloading_num_layers=5"],
            {"cpu_offloading": True, "cpu_offloading_num_layers": 5},
        ),
        (
            [
                "training.fine_grained_activation_offloading=true",
                "training.offload_modules=[core_attn,attn_proj]",
            ],
            {
                "fine_grained_activation_offloading": True,
                "offload_modules": ["core_attn", "attn_proj"],
                "cpu_offloading": False,
            },
        ),
        (
            ["parallel.context_parallel_size=4", "training.cross_entropy_loss_fusion=true"],
            {"context_parallel_size": 4, "cross_entropy_loss_fusion": True, "cp_comm_type": None},
        ),
        (
            ["parallel.context_parallel_size=2", f"parallel.cp_comm_type=[{'p2p,' * 29}a2a]"],
            {"cp_comm_type": [*["p2p"] * 29, "a2a"]},
        ),
        (
            ["training.attention_backend=fused", "training.deterministic_mode=true"],
            {"attention_backend": AttnBackend.fused, "deterministic_mode": True},
        ),
    ],
)
def test_model_options(recipe, overrides, expected):
    config = SHAPE.transformer_config(**parallel_groups.model_options(recipe(*overrides)))
    assert {name: getattr(config, name) for name in expected} == expected


def test_optimizer_options(recipe):
    offload = ["optimizer.optimizer_cpu_offload=true", "optimizer.optimizer_offload_fraction=0.5"]
    options = optimizer.optimizer_options(
        recipe(*offload, "optimizer.use_precision_aware_optimizer=true")
    )
    assert (options["optimizer_cpu_offload"], options["optimizer_offload_fraction"]) == (True, 0.5)
    small = recipe(
        *(
            "optimizer.use_precision_aware_optimizer=true",
            "optimizer.main_grads_dtype=bf16",
            "optimizer.main_params_dtype=fp16",
        ),
        *("optimizer.exp_avg_dtype=fp8", "optimizer.exp_avg_sq_dtype=bf16"),
    )
    # its configuration asks for Transformer Engine where it is made
    options = optimizer.optimizer_options(small)
    assert options.keys() <= {field.name for field in dataclasses.fields(OptimizerConfig)}
    expected = {
        "use_precision_aware_optimizer": True,
        "main_grads_dtype": torch.bfloat16,
        "main_params_dtype": torch.float16,
        "exp_avg_dtype": torch.uint8,
        "exp_avg_sq_dtype": torch.bfloat16,
    }
    assert {name: options[name] for name in expected} == expected
    assert not optimizer.data_parallel_config(small).grad_reduce_in_fp32
    checked = optimizer.data_parallel_config(recipe("resilience.check_for_nan_in_grad=true"))
    assert checked.check_for_nan_in_grad


def test_gradient_reduction(recipe):
    config = optimizer.data_parallel_config(recipe())
    assert config.grad_reduce_in_fp32
    assert config.bucket_size is None
    bf16 = [
        *("parallel.overlap_grad_reduce=true", "parallel.ddp_bucket_size=1000"),
        *(
            "optimizer.grad_reduce_in_bf16=true",
            "optimizer.ddp_reduce_scatter_with_fp32_accumulation=true",
        ),
    ]
    config = optimizer.data_parallel_config(recipe(*bf16))
    assert not config.grad_reduce_in_fp32
    assert config.reduce_scatter_with_fp32_accumulation
    assert config.bucket_size == 1000
    name = "param_name_patterns_for_fp32_local_accumulation"
    if name in {field.name for field in dataclasses.fields(config)}:
        run = recipe(*bf16, f"optimizer.ddp_{name}=[all]")
        assert getattr(optimizer.data_parallel_config(run), name) == ("all",)


def test_communicators(recipe, monkeypatch):
    options = {}
    monkeypatch.setattr(
        parallel_groups.parallel_state,
        "initialize_model_parallel",
        lambda **given: options.update(given),
    )
    monkeypatch.setattr(
        parallel_groups.parallel_state, "get_pipeline_model_parallel_rank", lambda: 0
    )
    monkeypatch.setattr(
        parallel_groups.tensor_parallel, "model_parallel_cuda_manual_seed", lambda seed: None
    )
    run = recipe("parallel.use_sharp=true", "parallel.nccl_communicator_config_path=n.yaml")
    parallel_groups.initialize(run.parallel, seed=1)
    assert options["use_sharp"] is True
    assert options["nccl_communicator_config_path"] == "n.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parallel.use_sharp=true", "parallel.use_sharp needs a GPU"),
        (
            "training.cpu_offloading_num_layers=2",
            "training.cpu_offloading_num_layers needs Transformer Engine",
        ),
        (
            "training.fine_grained_activation_offloading=true training.offload_modules=[core_attn]",
            "training.fine_grained_activation_offloading needs Transformer Engine",
        ),
        (
            "parallel.nccl_communicator_config_path=n.yaml",
            "parallel.nccl_communicator_config_path needs a GPU",
        ),
        (
            "training.fp8_format=hybrid",
            "training.fp8_format needs Transformer Engine; this run is on cpu",
        ),
        (
            (
                "parallel.tp_comm_overlap=true parallel.sequence_parallel=true"
                " parallel.tensor_model_parallel_size=3"
            ),
            "parallel.tp_comm_overlap needs",
        ),
        (
            "optimizer.use_precision_aware_optimizer=true",
            "optimizer.use_precision_aware_optimizer needs Transformer Engine",
        ),
        (
            "parallel.context_parallel_size=2 parallel.cp_comm_type=a2a",
            "parallel.cp_comm_type other than all_gather needs Transformer Engine",
        ),
        (
            "optimizer.optimizer_cpu_offload=true optimizer.use_precision_aware_optimizer=true",
            "optimizer.optimizer_cpu_offload needs a GPU",
        ),
        (
            "training.cross_entropy_loss_fusion=true",
            "training.cross_entropy_loss_fusion needs a GPU",
        ),
        (
            "profile.steps=[1,2] profile.use_pytorch_profiler=false",
            "profile.use_pytorch_profiler: false (Nsight Systems) needs a GPU",
        ),
        (
            "profile.steps=[1,2] profile.record_memory_history=true",
            "profile.record_memory_history needs a GPU",
        ),
        (
            "training.attention_backend=flash",
            "training.attention_backend: flash needs Transformer Engine",
        ),
    ],
)
def test_the_cpu_platform_refuses_by_name(recipe, override, message):
    platform = platforms.Platform(
        device=torch.device("cpu"), backend="gloo", transformer_engine=False
    )
    platform.check(recipe())
    with pytest.raises(UsageError) as error:
        platform.check(recipe(*override.split(" ")))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("version", "comm_type", "refused"),
    [
        ("2.9", "null", False),
        ("2.9", "p2p", False),
        ("2.9", "a2a", True),
        ("2.14", "all_gather", True),
        ("2.15", "all_gather", False),
    ],
)
def test_communication_of_packed_documents_needs_a_version(
    recipe, monkeypatch, version, comm_type, refused
):
    monkeypatch.setattr(core_utils, "get_te_version", lambda: Version(version))
    platform = platforms.Platform(
        device=torch.device("cuda", 0), backend="nccl", transformer_engine=True
    )
    context = ["parallel.context_parallel_size=3", f"parallel.cp_comm_type={comm_type}"]
    platform.check(recipe(*context))
    packed = recipe(*context, "data.reset_attention_mask=true")
    if not refused:
        platform.check(packed)
        return
    with pytest.raises(UsageError, match=f"{comm_type} with data.reset_attention_mask needs"):
        platform.check(packed)


SCHEDULES = {
    "linear": (["optimizer.lr_decay_style=linear"], [5e-5, 1e-4, 8.75e-5, 2.5e-5 / 2, 0]),
    "constant": (["optimizer.lr_decay_style=constant"], [5e-5, 1e-4, 1e-4, 1e-4, 1e-4]),
    "cosine": ([], [5e-5, 1e-4, 9.6194e-5, 3.806e-6, 0]),
    "inverse-square-root": (
        ["optimizer.lr_decay_style=inverse-square-root"],
        [5e-5, 1e-4, 8.1650e-5, 4.7140e-5, 4.4721e-5],
    ),
    "WSD": (
        [
            "optimizer.lr_decay_style=WSD",
            "optimizer.lr_wsd_decay_iters=4",
            "optimizer.lr_wsd_decay_style=linear",
        ],
        [5e-5, 1e-4, 1e-4, 2.5e-5, 0],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(recipe, name):
    """The rate of steps 1, 2, 3, 9 and 10 of 10, two of them warm-up.

    The formulas are written out here.
    """
    overrides, expected = SCHEDULES[name]

    class Weights:
        param_groups = [{"params": []}]  # noqa: RUF012

    scheduler = optimizer.build_scheduler(
        Weights(), recipe("optimizer.lr_warmup_iters=2", *overrides)
    )
    rates = []
    for _ in range(10):
        scheduler.step(8)
        rates.append(Weights.param_groups[0]["lr"])
    assert [rates[n] for n in (0, 1, 2, 8, 9)] == pytest.approx(expected, rel=1e-3, abs=1e-12)
