"""Runs over several processes, by DDP and by FSDP.

They give one process' result, and the same bits after a kill.
"""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune import train
from tests.finetune.test_train import kill_after, log_of

FSDP = ["lora=null", "training.fsdp=true", "optimizer.lr=2e-3"]


def same_run(first, second, result):
    """Compare the logs and results of two runs, to rounding."""
    logs = log_of(first), log_of(second)
    assert [(record["kind"], record["step"]) for record in logs[0]] == [
        (record["kind"], record["step"]) for record in logs[1]
    ]
    for one, both in zip(*logs, strict=True):
        assert both["loss"] == pytest.approx(one["loss"], rel=2e-4)
        assert both.get("grad_norm", 0) == pytest.approx(one.get("grad_norm", 0), rel=1e-3)
        for key in ("tokens", "consumed_samples", "accuracy"):
            assert both.get(key) == one.get(key)
    weights = [load_file(folder / result) for folder in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=2e-3)


@pytest.mark.multiprocess
def test_two_processes_train_as_one(recipe_file, tmp_path, start_forked):
    """One global batch of 6 gives the same losses and weights on one process and on two.

    Also in an epoch's last, smaller step.
    """
    torch.set_num_threads(1)
    common = [
        recipe_file,
        "training.metric_for_best_model=accuracy",
        "training.save_interval=6",
        "lora.dropout=0",
        "training.train_iters=8",
    ]
    train.main([*map(str, common), f"output={tmp_path / 'one'}"])
    codes, written = start_forked(
        2, *common, "training.gradient_accumulation_steps=1", f"output={tmp_path / 'two'}"
    ).wait()
    assert codes == [0, 0], written[-4000:]
    assert len(log_of(tmp_path / "one")) == 11
    same_run(tmp_path / "one", tmp_path / "two", "adapter/adapter_model.safetensors")


@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_sharded_processes_train_as_one(recipe_file, tmp_path, start_forked, kind):
    """FSDP, the best checkpoint by accuracy and the merged model with it."""
    torch.set_num_threads(1)
    best = [
        "training.metric_for_best_model=accuracy",
        "training.save_interval=6",
        "training.train_iters=8",
    ]
    change = (
        ["lora=null", "optimizer.lr=2e-3"]
        if kind == "full"
        else ["lora.dropout=0", "lora.merge=true"]
    )
    train.main([str(recipe_file), *best, *change, f"output={tmp_path / 'one'}"])
    two = [
        "training.fsdp=true",
        "training.gradient_accumulation_steps=1",
        f"output={tmp_path / 'two'}",
    ]
    codes, written = start_forked(2, recipe_file, *best, *change, *two).wait()
    assert codes == [0, 0], written[-4000:]
    same_run(tmp_path / "one", tmp_path / "two", "model/model.safetensors")
    AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "model")
    shards = sorted(
        path.name for path in (tmp_path / "two" / "checkpoints" / "checkpoint-6").iterdir()
    )
    assert "fsdp_model.safetensors" in shards  # it was FSDP: DDP writes no such file


@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_killed_processes_resume_to_the_same_bits(recipe_file, tmp_path, start_forked, kind):
    """All processes are killed with SIGKILL between two checkpoints, in the middle of an epoch.

    With DDP each process draws dropout of its own.
    """
    options = [
        recipe_file,
        "training.gradient_accumulation_steps=1",
        *(FSDP if kind == "fsdp" else []),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start_forked(2, *options, f"output={whole}").wait()[0] == [0, 0]
    started = start_forked(2, *options, f"output={killed}")
    kill_after(started, "step 6/12 | validation")
    assert (killed / "checkpoints" / "checkpoint-4").is_dir() and not (
        killed / "manifest.json"
    ).exists()
    codes, written = start_forked(2, *options, f"output={killed}").wait()
    assert codes == [0, 0] and "resuming from" in written, written[-4000:]
    name = "model/model.safetensors" if kind == "fsdp" else "adapter/adapter_model.safetensors"
    first, second = (load_file(folder / name) for folder in (whole, killed))
    assert first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
    assert [record["loss"] for record in log_of(whole)] == [
        record["loss"] for record in log_of(killed)
    ]
