"""Command-line mistakes give one clear message and the right exit code, before heavy work."""

import json
import shutil

import pytest

from galen import api, lock
from galen.errors import DataError, UsageError
from megatron_ext import pretrain
from tests.conftest import run
from tests.megatron_ext.conftest import RECIPE


@pytest.fixture
def attempt(tmp_path, start_forked, checkpoint, data):
    def attempt(*overrides):
        recipe = tmp_path / "r.yaml"
        recipe.write_text(RECIPE.format(output=tmp_path / "out", checkpoint=checkpoint, data=data))
        (code,), written = start_forked(1, recipe, *overrides).wait()
        assert "Traceback" not in written
        assert not (tmp_path / "out").exists()
        return code, written

    return attempt


@pytest.mark.parametrize("start", [[], ["--nproc-per-node", "2"]])
def test_a_second_start_is_refused_before_anything_is_read(tmp_path, monkeypatch, start):
    monkeypatch.delenv("RANK", raising=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(output=tmp_path / "out", checkpoint="none", data="none"))
    with lock.hold(tmp_path / "out"), pytest.raises(DataError, match="out is being written by "):
        pretrain.main([*start, str(recipe)])


def test_a_second_run_in_one_process_is_as_the_first(tmp_path, monkeypatch, checkpoint, data):
    """As in a notebook: nothing of the first is left, also when it failed."""
    monkeypatch.delenv("RANK", raising=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(output=tmp_path / "a", checkpoint=checkpoint, data=data))

    def fail(*_, **__):
        raise DataError("a wrong file")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="a wrong file"):
        patch.setattr(pretrain, "build_model_chunks", fail)
        api.pretrain(recipe, {"output": tmp_path / "failed"})
    losses = []
    for name in ("a", "b"):
        assert api.pretrain(recipe, {"output": tmp_path / name}) is not None
        records = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(record).get("loss") for record in records])
    assert losses[0] == losses[1]


def test_unknown_key(attempt):
    code, written = attempt("training.train_iter=5")
    assert code == 2
    assert "unknown key 'training.train_iter'; did you mean 'train_iters'?" in written


def test_impossible_layout(attempt):
    code, written = attempt("parallel.tensor_model_parallel_size=3")
    assert code == 2
    assert (
        "4 attention heads cannot be divided by parallel.tensor_model_parallel_size = 3" in written
    )


def test_no_checkpoint(attempt, tmp_path):
    code, written = attempt(f"model.checkpoint={tmp_path / 'none'}")
    assert code == 1
    assert "is not a Megatron checkpoint" in written


def test_no_data(attempt, tmp_path):
    code, written = attempt(f"data.train=[{tmp_path / 'none'}]")
    assert code == 1
    assert "none.idx is missing" in written


def test_half_a_checkpoint(attempt, tmp_path, checkpoint):
    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    (half / "iter_0000000" / ".metadata").unlink()
    code, written = attempt(f"model.checkpoint={half}")
    assert code == 1
    assert ".metadata is missing" in written


def test_help_lists_the_keys():
    done = run("-m", "megatron_ext.pretrain", "--help")
    assert (
        "tensor_model_parallel_size [1]  Processes among which each layer is divided."
        in done.stdout
    )


def test_a_process_with_another_recipe_is_named():
    from megatron_ext.pretrain import check_same_everywhere

    same = {"output": "run", "optimizer": {"lr": 1e-3, "clip_grad": 1.0}}
    check_same_everywhere([same, same])
    message = (
        r"process 2 was started with another recipe than process 0 \(optimizer.lr: 0.001 on process"
        r" 0, 0.002 on process 2\)"
    )
    with pytest.raises(UsageError, match=message):
        check_same_everywhere(
            [same, same, {"output": "run", "optimizer": {"lr": 2e-3, "clip_grad": 1.0}}]
        )
