"""A run that is stopped again and again and resumes under another layout stays the same.

It keeps the losses and samples of a run that never stopped. Its sources, their change at a step and
the ramp of the batch resume with it.
"""

import json
import shutil

import pytest

from checkpoints_convert import reshard
from megatron_ext.checkpoint import checkpoint_folder, optimizer_buckets
from tests.megatron_ext.conftest import log

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}}}
data:
  seq_length: 32
  num_workers: 0
  sources:
    counting:
      train: [{data}/train_text_document, {data}/validation_text_document]
      validation: [{data}/validation_text_document]
      weight: 3
    other:
      train: [{data}/other_text_document]
      validation: [{data}/other_text_document]
      weight: 1
  phases: [{{start_step: 5, weights: {{other: 1}}}}]
training:
  {{train_iters: 8, micro_batch_size: 2, global_batch_size: 8, rampup_batch_size: [4, 4, 12],
    precision: fp32, eval_interval: 8, eval_iters: 1, save_interval: 100}}
optimizer: {{lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2, adam_eps: 1e-3}}
"""
# With the usual adam_eps the first updates of a weight are its gradient's sign, so that the
# rounding of gradients near zero shows in the losses, by up to 2e-6. With this one all layouts
# agree to 6e-8.
PIPELINE = "parallel.pipeline_model_parallel_size=2"
UNBALANCED = [
    "parallel.virtual_pipeline_model_parallel_size=2",
    "parallel.pipeline_model_parallel_layout=Ett|t|t|L",
]
BUCKETS = "training.dist_ckpt_optim_fully_reshardable=never"
LAYOUTS = [
    (2, ["parallel.tensor_model_parallel_size=2", "training.micro_batch_size=4", BUCKETS]),
    (2, [PIPELINE, *UNBALANCED, BUCKETS]),
    (4, [PIPELINE, BUCKETS]),
    (2, ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]),
    (2, ["training.micro_batch_size=1", BUCKETS]),
]
IN_BUCKETS = [BUCKETS in options for _, options in LAYOUTS]
RESHARDED = 2
"""Of the checkpoints in buckets, the one that is converted before the next start."""


@pytest.fixture(scope="module")
def other(data):
    for end in ("bin", "idx"):
        shutil.copy(data / f"train_text_document.{end}", data / f"other_text_document.{end}")


@pytest.mark.multiprocess
def test_a_layout_change_keeps_the_losses(tmp_path, pretrain_forked, other):
    whole = pretrain_forked(1, output=tmp_path / "whole", recipe=RECIPE)
    steps = log(whole, "train")
    assert [record["global_batch_size"] for record in steps] == [4, 4, 4, 8, 8, 8, 8, 8]
    assert [record["consumed_samples"] for record in steps] == [4, 8, 12, 20, 28, 36, 44, 52]
    validation = log(whole, "validation")[-1]
    assert validation["loss"] == pytest.approx(
        0.75 * validation["sources"]["counting"] + 0.25 * validation["sources"]["other"]
    )

    changing = tmp_path / "changing"
    changing.mkdir()
    for stops, (processes, layout) in enumerate(LAYOUTS):
        (changing / "stop").touch()  # each start takes one step, then finds the file
        codes, written = pretrain_forked(
            processes, *layout, output=changing, recipe=RECIPE, check=False
        )
        assert codes == [75] * processes, written[-3000:]
        assert json.loads((changing / "stopped.json").read_text()) == {
            "reason": "trigger file",
            "iteration": stops + 1,
            "exit_code": 75,
        }
        assert not (changing / "stop").exists()
        saved = checkpoint_folder.newest(changing / "checkpoints")
        assert (saved / optimizer_buckets.NAME).exists() == IN_BUCKETS[stops]
        if stops == RESHARDED:
            original = (changing / "checkpoints").rename(tmp_path / "original")
            reshard.main(["--megatron", str(original), "--output", str(changing / "checkpoints")])
    pretrain_forked(1, output=changing, recipe=RECIPE)
    assert not (changing / "stopped.json").exists()
    for expected, found in zip(steps, log(changing, "train"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=2e-7)
        assert (found["consumed_samples"], found["lr"]) == (
            expected["consumed_samples"],
            expected["lr"],
        )
    assert log(changing, "validation")[-1]["loss"] == pytest.approx(validation["loss"], rel=2e-7)
