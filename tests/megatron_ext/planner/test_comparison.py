"""`galen plan --compare`: the plan beside a run folder written by hand."""

import json

import pytest

from galen import api
from galen.errors import UsageError
from megatron_ext import plan
from megatron_ext.config.architecture import read_architecture
from megatron_ext.observability import expert_load
from megatron_ext.planner.comparison import expectation
from tests.conftest import ROOT
from tests.megatron_ext.conftest import RECIPE

ARCHITECTURE = ROOT / "examples/pretrain/architectures/meditron_7b.json"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def run(tmp_path):
    """Eight GPUs, 20 steps of 2 s after slower ones, a save of 3 s."""
    folder = tmp_path / "run"
    folder.mkdir()
    text = RECIPE.format(output=folder, checkpoint="nowhere", data="nowhere")
    text = text.replace("precision: fp32", "precision: bf16").replace(
        "seq_length: 32", "seq_length: 2048"
    )
    text = text.replace("nowhere}", f"nowhere, architecture: {ARCHITECTURE}}}")
    text = text.replace("global_batch_size: 8", "global_batch_size: 128")
    (folder / "recipe.yaml").write_text(text.replace("train_iters: 4", "train_iters: 40"))
    _write(folder, H100)
    return folder


def _write(folder, device, steps=range(1, 31)):
    clock = [
        {
            "kind": "start",
            "began": 1e9,
            "host": "n1",
            "ranks": 8,
            "job": {},
            "previous": {},
            "seconds": {"imports": 10},
        },
        {
            "kind": "ready",
            "layout": "TP1 PP1 CP1 DP8",
            "device": device,
            "hang_limit": 600,
            "seconds": {},
        },
        *({"kind": "step", "step": step, "seconds": {"train": 2}} for step in steps),
        {"kind": "save", "step": 30, "seconds": {"checkpoint": 3}},
    ]
    time = 1e9
    lines = []
    for line in clock:
        time += sum(line["seconds"].values())
        lines.append(json.dumps({"step": 0, "time": time, **line}))
    (folder / "goodput.jsonl").write_text("\n".join(lines) + "\n")
    tokens = 128 * 2048
    records = [
        {
            "kind": "train",
            "step": step,
            "loss": 1.0,
            "grad_norm": 1.0,
            "lr": 1e-3,
            "tokens": step * tokens,
            "elapsed": 2.0 * step,
            "tokens_per_second": tokens / (3.0 if step < 5 else 2.0),
            "mfu": 0.5,
            "peak_memory": 50 * 2**30,
        }
        for step in steps
    ]
    records.append(
        {"kind": "checkpoint", "step": 30, "checkpoint_stall": 3.0, "phases": {"copy": 3.0}}
    )
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_planned_and_measured(run, capsys):
    assert plan.main([str(run / "recipe.yaml"), "--compare", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["gpus"], result["gpu"], result["steps"]) == (8, "h100-80gb", 20)
    figures = result["figures"]
    measured = {name: figure["measured"] for name, figure in figures.items()}
    assert measured["step_seconds"] == pytest.approx(2.0)
    assert measured["tokens_per_second_per_gpu"] == pytest.approx(128 * 2048 / 2 / 8)
    assert (measured["mfu"], measured["peak_memory"]) == (0.5, 50 * 2**30)
    assert measured["checkpoint_stall"] == pytest.approx(3.0)
    assert 0.5 < measured["goodput"] < 1
    assert measured["mtbf_hours"] is None  # no failure yet
    assert all(figure["planned"] > 0 for figure in figures.values())
    step = figures["step_seconds"]
    assert step["error"] == pytest.approx(step["planned"] / 2.0 - 1)
    # the same plan without the run
    plan.main([str(run / "recipe.yaml"), "--gpus", "8", "--json"])
    planned = json.loads(capsys.readouterr().out)["recipe"]
    assert planned["step_seconds"] == step["planned"]
    assert planned["stages"][0]["total"] == figures["peak_memory"]["planned"]


def test_from_python(run):
    result = api.plan(run / "recipe.yaml", compare=run)
    assert result["figures"]["step_seconds"]["measured"] == pytest.approx(2.0)
    assert api.plan(run / "recipe.yaml", 8, mtbf_hours=10)["recipe"]["cost"]["mtbf_hours"] == 10
    assert api.plan(run / "recipe.yaml", 8)["gpu"] == "h100-80gb"


def test_as_a_table(run, capsys):
    plan.main([str(run / "recipe.yaml"), "--compare", str(run)])
    text = capsys.readouterr().out
    assert "8 x h100-80gb, medians of the last 20 logged steps" in text
    measured = {
        line.rsplit(maxsplit=3)[0].strip(): line.split()[-2] for line in text.splitlines()[2:]
    }
    assert measured["step, s"] == "2.00"
    assert measured["tokens/s/GPU"] == "16,384"
    assert measured["peak memory of rank 0, GiB"] == "50.0"


def test_no_prediction_for_cpus(run):
    _write(run, "x86_64")
    with pytest.raises(UsageError, match=r"the run's device is x86_64; .* not on CPUs"):
        plan.main([str(run / "recipe.yaml"), "--compare", str(run)])


def test_a_plan_of_another_layout_is_refused(run):
    words = [str(run / "recipe.yaml"), "parallel.tensor_model_parallel_size=2", "--compare"]
    with pytest.raises(UsageError, match="parallel_size is 1 in the run and 2 in the plan"):
        plan.main([*words, str(run)])


def test_steps_of_a_ramp_up_are_left_out(run):
    log = run / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    ramp = [{**record, "global_batch_size": 64} for record in records if record["kind"] == "train"]
    log.write_text("".join(json.dumps(record) + "\n" for record in ramp))
    with pytest.raises(UsageError, match="the batch size is still ramping up"):
        plan.main([str(run / "recipe.yaml"), "--compare", str(run)])


def test_a_run_without_steps(run):
    (run / "log.jsonl").write_text("")
    with pytest.raises(UsageError, match="has logged no steps yet"):
        plan.main([str(run / "recipe.yaml"), "--compare", str(run)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "RUN", "--gpu", "h200"], "--gpu and --compare are incompatible"),
        (["--compare", "RUN", "--best", "3"], "--best and --compare are incompatible"),
        (["--gpus", "8", "--mtbf-hours", "0"], "--mtbf-hours 0.0: must be above 0"),
        (["--gpus", "8", "--mtbf-hours", "nan"], "--mtbf-hours nan: must be above 0"),
    ],
)
def test_refused_options(run, words, message):
    with pytest.raises(UsageError, match=message):
        plan.main(
            [str(run / "recipe.yaml"), *(str(run) if word == "RUN" else word for word in words)]
        )


def test_the_line_at_the_start_of_a_run(run):
    from megatron_ext.config.recipe import from_run

    recipe = from_run(run / "recipe.yaml")
    architecture = read_architecture(ARCHITECTURE)
    line = expectation(recipe, architecture, 8, H100)
    assert line is not None and line.startswith("planned: ") and "tokens/s/GPU" in line
    assert expectation(recipe, architecture, 8, "x86_64") is None


def test_the_balance_of_experts(run, capsys):
    """One of eight GPUs has half more tokens than the mean in one layer of two."""
    file = run / "recipe.yaml"
    qwen = ROOT / "examples/pretrain/architectures/qwen3_30b_a3b.json"
    text = file.read_text().replace(str(ARCHITECTURE), str(qwen))
    file.write_text(text + "parallel: {expert_model_parallel_size: 8}\n")
    full = [1.5] * 16
    layer = full + [(128 - sum(full)) / 112] * 112
    expert_load.write(run, 30, [layer, [1.0] * 128])
    assert plan.main([str(file), "--compare", str(run), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    imbalance = figures["expert_imbalance"]
    assert (imbalance["planned"], imbalance["measured"]) == (1.25, pytest.approx(1.25))
    assert plan.main([str(file), "--compare", str(run)]) == 0
    assert "tokens of the fullest GPU's experts / mean" in capsys.readouterr().out
    other = "parallel.expert_model_parallel_size=4"
    with pytest.raises(UsageError, match="expert_model_parallel_size is 8 in the run and 4"):
        plan.main([str(file), other, "--compare", str(run)])
