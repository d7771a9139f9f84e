"""A mixture of experts: the same losses, gradient norms and load under all layouts."""

import pytest

from checkpoints_convert import reshard
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder, optimizer_buckets
from megatron_ext.observability import loss_report, run_state
from tests.megatron_ext import experts
from tests.megatron_ext.conftest import log

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}/../experts, verify_checksums: false}}
data:
  {{train: [{data}/train_text_document], validation: [{data}/validation_text_document],
    seq_length: 32, num_workers: 0}}
training:
  {{train_iters: 6, micro_batch_size: 2, global_batch_size: 8, precision: fp32, eval_iters: 0,
    save_interval: 100}}
optimizer: {{lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2, adam_eps: 1e-3}}
moe: {{moe_aux_loss_coeff: 0.01, moe_z_loss_coeff: 0.001}}
"""
EXPERT = "parallel.expert_model_parallel_size=2"
OVERLAP = ["parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"]
TENSOR = ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]
BUCKETS = "training.dist_ckpt_optim_fully_reshardable=never"
LAYOUTS = [
    (2, [EXPERT, BUCKETS, "training.async_save=true"]),
    (2, [EXPERT, BUCKETS]),
    (4, [EXPERT, *TENSOR]),
    (
        4,
        [
            EXPERT,
            "parallel.pipeline_model_parallel_size=2",
            "parallel.virtual_pipeline_model_parallel_size=2",
            "parallel.moe_token_dispatcher_type=allgather",
            "training.micro_batch_size=1",
            BUCKETS,
        ],
    ),
    (2, [EXPERT, *TENSOR, "parallel.expert_tensor_parallel_size=1", *OVERLAP]),
]
"""Of the starts, each of which takes a step; the last start is of one process."""
RESHARDED = 3
"""The checkpoint that is converted before the next start."""


@pytest.fixture(scope="module")
def alone(pretrain_forked, checkpoint):
    experts.write_checkpoint(checkpoint.parent / "experts", checkpoint / "hf")
    return pretrain_forked(1, recipe=RECIPE)


def compare(expected, actual):
    """Compare all steps of two runs."""
    for one, other in zip(log(expected, "train"), log(actual, "train"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-6)
        assert other["load_balancing_loss"] == pytest.approx(one["load_balancing_loss"], rel=1e-6)
        assert other["z_loss"] == pytest.approx(one["z_loss"], rel=1e-6)
        for name in ("expert_load_max_by_layer", "expert_load_min", "unused_experts", "tokens"):
            assert other[name] == one[name]


@pytest.mark.multiprocess
def test_a_layout_change_keeps_the_steps(pretrain_forked, alone, tmp_path):
    """Expert parallelism has an optimizer of its own for the experts, one process has one."""
    changing = tmp_path / "changing"
    changing.mkdir()
    for stops, (processes, layout) in enumerate(LAYOUTS):
        (changing / "stop").touch()  # each start takes one step, then finds the file
        codes, written = pretrain_forked(
            processes, *layout, output=changing, recipe=RECIPE, check=False
        )
        assert codes == [75] * processes, written[-3000:]
        saved = checkpoint_folder.newest(changing / "checkpoints")
        assert (saved / optimizer_buckets.NAME).exists() == (BUCKETS in layout)
        if stops == RESHARDED:
            original = (changing / "checkpoints").rename(tmp_path / "original")
            reshard.main(["--megatron", str(original), "--output", str(changing / "checkpoints")])
    pretrain_forked(1, output=changing, recipe=RECIPE)
    compare(alone, changing)
    assert (changing / "goodput.jsonl").read_text().count(" EP2 ETP") == len(LAYOUTS)
    check_monitor(changing)


def check_monitor(folder):
    """Check the figures and the page of a run."""
    state = run_state.read(folder)
    last = log(folder, "train")[-1]
    highest = [max(layer) for layer in state.expert_load.load]
    assert (state.expert_load.step, highest) == (6, last["expert_load_max_by_layer"])
    shown = run_state.figures(state)
    assert shown["expert load"].endswith(f"{max(highest):.2f} of the mean, 0.0% unused")
    assert shown["load balancing loss"] == f"{last['load_balancing_loss']:.4f}"
    curves = loss_report.curves(state)
    assert "Load of each expert, step 6" in curves and "Highest expert load" in curves
    (folder / "expert_load.json").write_text('{"step": 6, "load": [[1], [1, 2]]}')
    with pytest.raises(DataError, match="no table of layers and experts; remove it"):
        run_state.read(folder)
