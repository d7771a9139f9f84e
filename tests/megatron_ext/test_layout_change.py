"""A run whose layout changes again and again, optimizer state and all, keeps the loss curve of one that never changed."""

import pytest

from tests.megatron_ext.conftest import log
from tests.megatron_ext.kills import rewind

STEPS = ["training.train_iters=8", "training.save_interval=2", "training.keep_checkpoints=9", "training.eval_interval=8"]
LAYOUTS = [
    (2, "TP2", ["parallel.tensor_model_parallel_size=2"]),
    (2, "PP2", ["parallel.pipeline_model_parallel_size=2"]),
    (4, "PP2 x DP2", ["parallel.pipeline_model_parallel_size=2"]),
    (2, "TP2 again", ["parallel.tensor_model_parallel_size=2"]),
]


@pytest.mark.multiprocess
def test_the_loss_curve_does_not_notice(tmp_path, pretrain_forked):
    undisturbed = pretrain_forked(1, *STEPS, output=tmp_path / "undisturbed")
    changing = tmp_path / "changing"
    for number, (processes, _, layout) in enumerate(LAYOUTS):
        if number:
            rewind(changing, 2 * number)
        pretrain_forked(processes, *STEPS, *layout, output=changing)
    expected, found = log(undisturbed, "train"), log(changing, "train")
    assert [record["step"] for record in found] == list(range(1, 9))
    for before, after in zip(expected, found, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)
        assert after["consumed_samples"] == before["consumed_samples"]
    assert log(changing, "validation")[-1]["loss"] == pytest.approx(log(undisturbed, "validation")[-1]["loss"], rel=1e-6)


@pytest.mark.multiprocess
def test_checkpoints_written_on_the_side_are_the_same(tmp_path, pretrain_forked):
    at_once = pretrain_forked(2, *STEPS, output=tmp_path / "at_once")
    aside = pretrain_forked(2, *STEPS, "training.async_save=true", output=tmp_path / "aside")
    names = [sorted(path.name for path in (run / "checkpoints").glob("iter_*")) for run in (at_once, aside)]
    assert names[0] == names[1] == [f"iter_000000{step}" for step in (2, 4, 6, 8)]
    rewind(aside, 4)
    pretrain_forked(2, *STEPS, "training.async_save=true", output=aside)
    assert [(r["step"], r["loss"], r["grad_norm"]) for r in log(aside, "train")] == [
        (r["step"], r["loss"], r["grad_norm"]) for r in log(at_once, "train")
    ]
