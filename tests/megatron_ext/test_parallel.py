"""One model, one batch, several layouts: the same losses and gradient norms."""

from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.megatron_ext.conftest import log

OVERLAP = ["parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"]
LAYOUTS = {
    "TP2, deterministic": (
        2,
        [
            "parallel.tensor_model_parallel_size=2",
            "training.deterministic_mode=true",
            "training.attention_backend=local",
        ],
    ),
    "TP2 with sequence parallelism": (
        2,
        ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"],
    ),
    "PP2": (2, ["parallel.pipeline_model_parallel_size=2"]),
    "DP2 with overlap of several buckets": (2, [*OVERLAP, "parallel.ddp_bucket_size=10000"]),
    "PP2 x DP2, interleaved, with overlap": (
        4,
        [
            "parallel.pipeline_model_parallel_size=2",
            "parallel.virtual_pipeline_model_parallel_size=2",
            "training.micro_batch_size=1",  # several in flight
            *OVERLAP,
        ],
    ),
    "CP2": (2, ["parallel.context_parallel_size=2"]),
    "full recompute": (
        1,
        ["training.recompute_granularity=full", "training.recompute_num_layers=2"],
    ),
    "selective recompute": (
        1,
        [
            "training.recompute_granularity=selective",
            "training.recompute_modules=[mlp,core_attn]",
        ],
    ),
    "TP2 x CP2 with sequence parallelism": (
        4,
        [
            "parallel.tensor_model_parallel_size=2",
            "parallel.context_parallel_size=2",
            "parallel.sequence_parallel=true",
        ],
    ),
    "TP2 x PP2": (
        4,
        ["parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2"],
    ),
}


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", LAYOUTS)
def test_same_losses_as_one_process(pretrain_forked, alone, name):
    processes, overrides = LAYOUTS[name]
    output = pretrain_forked(processes, *overrides)
    for expected, actual in zip(log(alone, "train"), log(output, "train"), strict=True):
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
        assert (actual["lr"], actual["tokens"]) == (expected["lr"], expected["tokens"])
    for expected, actual in zip(log(alone, "validation"), log(output, "validation"), strict=True):
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    context = 2 if "CP2" in name else 1
    assert f" CP{context} DP" in (output / "goodput.jsonl").read_text()  # not shown as replicas


@pytest.mark.multiprocess
def test_training_lowers_the_loss(alone):
    losses = [record["loss"] for record in log(alone, "validation")]
    assert len(losses) == 3  # before the first step, after the second, after the last
    assert losses[-1] < losses[0]


BF16_GRADIENTS = [
    "optimizer.grad_reduce_in_bf16=true",
    "optimizer.ddp_reduce_scatter_with_fp32_accumulation=true",
]
if Version(version("megatron-core")) >= Version("0.19"):
    BF16_GRADIENTS.append("optimizer.ddp_param_name_patterns_for_fp32_local_accumulation=[all]")


@pytest.mark.multiprocess
@pytest.mark.parametrize(("processes", "overrides"), [(1, []), (2, BF16_GRADIENTS)])
def test_bf16_stays_near_fp32(pretrain_forked, alone, processes, overrides):
    output = pretrain_forked(processes, "training.precision=bf16", *overrides)
    for expected, actual in zip(log(alone, "train"), log(output, "train"), strict=True):
        assert actual["loss"] == pytest.approx(expected["loss"], rel=0.01)
