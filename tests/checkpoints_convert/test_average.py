"""The mean of checkpoints: against one computed by hand in float64."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import average, hf_to_megatron, megatron_to_hf
from checkpoints_convert.conversion import averaged_model
from galen.errors import DataError, OutputConflictError, UsageError


@pytest.fixture(scope="module")
def run(models, tmp_path_factory):
    """A run of three iterations in bf16, and their tensors."""
    base = tmp_path_factory.mktemp("average")
    tensors = []
    for number in range(3):
        hf = base / f"hf{number}"
        shutil.copytree(models["qwen2"], hf)
        source = torch.Generator().manual_seed(number)
        of_model = {
            name: torch.randn(tensor.shape, generator=source).bfloat16()
            for name, tensor in load_file(hf / "model.safetensors").items()
        }
        save_file(of_model, hf / "model.safetensors", {"format": "pt"})
        tensors.append(of_model)
        hf_to_megatron.main(["--hf", str(hf), "--output", str(base / f"m{number}")])
    checkpoints = base / "run" / "checkpoints"
    shutil.copytree(base / "m0" / "hf", checkpoints / "hf")
    for number in range(3):
        folder = checkpoints / f"iter_{1000 * (number + 1):07d}"
        shutil.copytree(base / f"m{number}" / "iter_0000000", folder)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("3000")
    return checkpoints, tensors, base


def averaged(tmp_path, *arguments):
    """Average, export and return the tensors."""
    average.main([*map(str, arguments), "--output", str(tmp_path / "average")])
    paths = ["--megatron", str(tmp_path / "average"), "--output", str(tmp_path / "hf")]
    megatron_to_hf.main(paths)
    return load_file(tmp_path / "hf" / "model.safetensors")


def mean(tensors, weights):
    return {
        name: sum(weight * of[name].double() for weight, of in zip(weights, tensors, strict=True))
        / sum(weights)
        for name in tensors[0]
    }


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ([], [1, 1, 1]),
        (["--weights", "1,0.5,2"], [1, 0.5, 2]),
        (["--ema", "0.75"], [0.75**2, 0.75 * 0.25, 0.25]),
    ],
)
def test_the_mean_is_that_computed_by_hand(tmp_path, run, options, weights):
    checkpoints, tensors, _ = run
    found = averaged(tmp_path, "--megatron", checkpoints, "--iterations", "all", *options)
    expected = mean(tensors, weights)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is torch.bfloat16
        assert found[name].equal(tensor.bfloat16()), name
    record = json.loads((tmp_path / "average" / "iter_0000000" / "manifest.json").read_text())
    assert record["config"]["weights"] == weights


@pytest.mark.slow  # starts two processes
def test_runs_from_the_same_base_and_fp32(tmp_path, run):
    _, tensors, base = run
    folders = ["--megatron", base / "m0", base / "m2"]
    found = averaged(tmp_path, *folders, "--dtype", "fp32", "--workers", "2")
    for name, tensor in mean([tensors[0], tensors[2]], [1, 1]).items():
        assert found[name].equal(tensor.float()), name
    # a finished one is left as it is, another is refused
    average.main([*map(str, folders), "--dtype", "fp32", "--output", str(tmp_path / "average")])
    with pytest.raises(OutputConflictError):
        average.main([*map(str, folders), "--output", str(tmp_path / "average")])


def test_ema_is_the_recursion():
    values = [3.0, -1.0, 7.0, 2.0]
    state = values[0]
    for value in values[1:]:
        state = 0.9 * state + 0.1 * value
    weights = averaged_model.ema(4, 0.9)
    assert sum(weights) == pytest.approx(1)
    assert sum(w * value for w, value in zip(weights, values, strict=True)) == pytest.approx(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iterations", "2000"], "single checkpoint"),
        (["--iterations", "1000,1000"], "named twice"),
        (["--iterations", "1000,4000"], "holds no iteration 4000"),
        (["--iterations", "all", "--weights", "1,2"], "2 numbers for 3"),
        (["--iterations", "all", "--weights", "1,x,2"], "must be numbers"),
        (["--iterations", "all", "--weights", "0,0,0"], "positive sum"),
        (["--iterations", "all", "--weights", "1,-1,1"], "at least 0"),
        (["--iterations", "all", "--ema", "1"], "between 0 and 1"),
        (["--iterations", "all", "--ema", "0.5", "--weights", "1,1,1"], "exclude each other"),
    ],
)
def test_refusals(tmp_path, run, options, message):
    with pytest.raises((UsageError, DataError), match=message):
        average.main(["--megatron", str(run[0]), *options, "--output", str(tmp_path / "average")])
    assert not (tmp_path / "average").exists()


def test_different_models_are_refused(tmp_path, run, checkpoints):
    folders = [str(run[0]), str(checkpoints["llama-3"])]
    with pytest.raises(DataError, match="are of different models"):
        average.main(["--megatron", *folders, "--output", str(tmp_path / "average")])
