"""A mixture of experts: the same losses and gradient norms under all layouts."""

import pytest

from tests.megatron_ext import experts
from tests.megatron_ext.conftest import log

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}/../experts, verify_checksums: false}}
data:
  {{train: [{data}/train_text_document], validation: [{data}/validation_text_document],
    seq_length: 32, num_workers: 0}}
training:
  {{train_iters: 10, micro_batch_size: 2, global_batch_size: 8, precision: fp32,
    eval_interval: 10, eval_iters: 1, save_interval: 5}}
optimizer: {{lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2, adam_eps: 1e-3}}
moe: {{moe_aux_loss_coeff: 0.01, moe_z_loss_coeff: 0.001}}
"""
EXPERT = "parallel.expert_model_parallel_size=2"
TENSOR = ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]
PIPELINE = "parallel.pipeline_model_parallel_size=2"
LAYOUTS = {
    "DP2": (2, []),
    "EP2": (2, [EXPERT]),
    "EP2 allgather": (2, [EXPERT, "parallel.moe_token_dispatcher_type=allgather"]),
    "EP2 TP2 ETP1": (2, [EXPERT, *TENSOR, "parallel.expert_tensor_parallel_size=1"]),
    "EP2 TP2": (4, [EXPERT, *TENSOR]),
    "TP2": (2, TENSOR),
    "PP2": (2, [PIPELINE]),
    "TP2 PP2": (4, [PIPELINE, *TENSOR]),
    "EP2 PP2": (4, [EXPERT, PIPELINE]),
    "EP2 DP2 overlap": (
        4,
        [EXPERT, "parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"],
    ),
    "EP2 CP2": (2, [EXPERT, "parallel.context_parallel_size=2"]),
    "recompute": (
        1,
        ["training.recompute_granularity=selective", "training.recompute_modules=[moe]"],
    ),
    "recompute full": (1, ["training.recompute_granularity=full"]),
    "mbs1": (1, ["training.micro_batch_size=1"]),
    "VPP": (
        2,
        [
            PIPELINE,
            "parallel.virtual_pipeline_model_parallel_size=2",
            "training.micro_batch_size=1",
        ],
    ),
}


@pytest.fixture(scope="module")
def alone(pretrain_forked, checkpoint):
    experts.write_checkpoint(checkpoint.parent / "experts", checkpoint / "hf")
    return pretrain_forked(1, recipe=RECIPE)


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", LAYOUTS)
def test_same(pretrain_forked, alone, name):
    processes, overrides = LAYOUTS[name]
    output = pretrain_forked(processes, *overrides, recipe=RECIPE)
    worst = {}
    for e, a in zip(log(alone, "train"), log(output, "train"), strict=True):
        for key in ("loss", "grad_norm", "load_balancing_loss", "z_loss", "expert_load_max"):
            worst[key] = max(worst.get(key, 0), abs(e[key] / a[key] - 1))
    print("WORST", name, worst)
    assert max(worst.values()) < 2e-6
