import json

import pytest

from galen.recipe import load
from megatron_ext import plan
from megatron_ext.config.architecture import read_architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.plan_lines import expert_lines
from tests.conftest import ROOT
from tests.megatron_ext.conftest import RECIPE

ARCHITECTURE = ROOT / "examples/pretrain/architectures/meditron_70b.json"


@pytest.fixture
def call(tmp_path, capsys):
    def call(*words, code=None):
        file = tmp_path / "recipe.yaml"
        file.write_text(
            RECIPE.format(output=tmp_path / "run", checkpoint="nowhere", data="nowhere")
        )
        large = [
            "data.seq_length=4096",
            "training.global_batch_size=512",
            "training.micro_batch_size=1",
            "training.precision=bf16",
        ]
        ended = plan.main([str(file), f"model.architecture={ARCHITECTURE}", *large, *words])
        assert ended in ((0, plan.DOES_NOT_FIT, plan.IMPOSSIBLE) if code is None else (code,))
        return capsys.readouterr().out

    return call


def test_a_layout_that_does_not_fit_and_ones_that_do(call):
    plan_json = json.loads(
        call("--gpus", "64", "--gpu", "h100-80gb", "--json", code=plan.DOES_NOT_FIT)
    )
    assert not plan_json["recipe"]["fits"]
    assert (
        plan_json["recipe"]["stages"][0]["weights"]
        == 2 * plan_json["recipe"]["stages"][0]["parameters"]
    )
    assert plan_json["best"] and all(
        one["fits"] and one["memory"] < 80 * 2**30 for one in plan_json["best"]
    )
    times = [one["step_seconds"] for one in plan_json["best"]]
    assert times == sorted(times)
    sizes = set()
    for one in plan_json["best"]:
        words = [word for word in one["layout"] if "_model_parallel_size" in word]
        sizes.add(tuple(word for word in words if "virtual" not in word))
    assert len(sizes) == len(plan_json["best"])
    for one in plan_json["best"]:
        assert one["step_seconds"] == pytest.approx(sum(one["step_parts"].values()))


@pytest.mark.parametrize(
    "words",
    [
        [],
        [  # which other layouts must take back
            *(
                "parallel.tensor_model_parallel_size=8",
                "parallel.sequence_parallel=true",
                "parallel.tp_comm_overlap=true",
            ),
            *(
                "parallel.pipeline_model_parallel_size=2",
                "parallel.num_layers_in_first_pipeline_stage=41",
            ),
            *("training.recompute_granularity=selective", "training.recompute_modules=[mlp]"),
        ],
    ],
)
def test_the_best_layout_is_taken_on_the_command_line(call, words):
    best = json.loads(call("--gpus", "64", "--json", *words))["best"][0]
    again = json.loads(call("--gpus", "64", "--json", *words, *best["layout"], code=0))["recipe"]
    assert again | {"layout": None} == best | {"layout": None}


def test_the_table(call):
    text = call("--gpus", "64")
    assert "68.98B parameters" in text and "DOES NOT FIT into 79.6 GiB" in text
    assert "Fastest layouts that fit" in text
    assert "A checkpoint has 899.4 GiB" in text
    assert "days and " in text and "GPU-hours to the last step; goodput " in text
    assert "A save stops training for " in text


def test_a_peak_in_the_optimizer_step(call):
    words = ["data.seq_length=32", "training.global_batch_size=64", "--gpus", "64"]
    words += ["parallel.tensor_model_parallel_size=8", "parallel.sequence_parallel=true"]
    assert "The peak is the optimizer's step" not in call(*words)
    words += ["parallel.pipeline_model_parallel_size=8", "optimizer.grad_reduce_in_bf16=true"]
    assert "The peak is the optimizer's step, with 4.1 GiB of float32 gradients" in call(*words)


def test_a_run_that_cannot_end(call):
    words = ["--gpus", "64", "--mtbf-hours", "0.001"]
    assert "the run never ends: failures come before the next checkpoint" in call(*words)
    cost = json.loads(call(*words, "--json"))["recipe"]["cost"]
    assert (cost["days"], cost["gpu_hours"], cost["mtbf_hours"]) == (None, None, 0.001)


def test_the_throughput_of_long_sequences_is_a_range(call, tmp_path):
    architecture = json.loads(ARCHITECTURE.read_text()) | {"max_position_embeddings": 65536}
    (tmp_path / "long.json").write_text(json.dumps(architecture))
    words = [
        *("--gpus", "256", "data.seq_length=65536", f"model.architecture={tmp_path / 'long.json'}"),
        *("parallel.context_parallel_size=8", "parallel.pipeline_model_parallel_size=8"),
    ]
    assert "Beyond 8,192 tokens in a sequence expect" in call(*words)
    one = json.loads(call(*words, "--json"))["recipe"]
    assert 0 < one["lower_tokens_per_second_per_gpu"] < one["tokens_per_second_per_gpu"]
    short = json.loads(call("--gpus", "64", "--json"))["recipe"]
    assert short["lower_tokens_per_second_per_gpu"] is None


def test_an_impossible_layout_says_why(call):
    text = call(
        "--gpus",
        "63",
        "parallel.tensor_model_parallel_size=8",
        "parallel.sequence_parallel=true",
        code=plan.IMPOSSIBLE,
    )
    assert "impossible: the number of processes (63) must be a multiple of tensor x" in text
    assert "No layout divides the model and a batch of 512 over 63" in text
    assert "No layout fits on 8 x h100-80gb; the smallest needs " in call("--gpus", "8")


def test_fp8_needs_a_gpu_that_has_it(call):
    assert "has no FP8 matrix products" in call(
        "--gpus", "64", "--gpu", "a100-80gb", "training.fp8_format=hybrid"
    )


@pytest.mark.parametrize(
    "words",
    [
        [
            "training.recompute_granularity=full",
            "training.recompute_method=block",
            "training.recompute_num_layers=5",
        ],
        ["training.recompute_granularity=selective", "training.recompute_modules=[mlp]"],
    ],
)
def test_recompute_saves_memory(call, words):
    layout = [
        "--gpus",
        "64",
        "--best",
        "1",
        "--json",
        "parallel.tensor_model_parallel_size=8",
        "parallel.pipeline_model_parallel_size=8",
    ]
    without = json.loads(call(*layout))["recipe"]
    recomputing = json.loads(call(*layout, *words))["recipe"]
    assert recomputing["memory"] < without["memory"]
    assert recomputing["stages"][0]["weights"] == without["stages"][0]["weights"]


def test_a_mixture_of_experts(capsys):
    recipe = str(ROOT / "examples/pretrain/qwen3_30b_a3b.yaml")
    layout = str(ROOT / "examples/pretrain/layouts/30b_a3b_h100_bf16.yaml")
    shape = f"model.architecture={ROOT}/examples/pretrain/architectures/qwen3_30b_a3b.json"
    words = [recipe, layout, shape, "--gpus", "16", "--best", "3"]
    assert plan.main(words) == 0
    text = capsys.readouterr().out
    assert "30.53B parameters (3.35B active)" in text
    assert "128 experts per layer, 8 active per token; 16 on each GPU (EP8), without copies" in text
    unbalanced = text.split("(25% more tokens than the mean on one GPU) expect ")[1].split("\n")[0]
    assert unbalanced.startswith("7,375 tokens/s/GPU: 2.3 days and 88")
    assert "None is faster than the recipe's layout." in text
    assert "expert parallel " in text and " dispatch " in text
    assert "DP  EP  micro" in text
    layout = text.split("Overrides of the first: ")[1].split()
    assert plan.main([*words, "--json", *layout]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["active_parameters"] == 3_353_032_704
    assert printed["recipe"]["experts_per_gpu"] == 32
    assert printed["recipe"]["step_parts"]["dispatch"] > 0
    fastest = printed["best"][0]
    assert printed["recipe"] | {"layout": None} == fastest | {"layout": None}


def test_what_makes_experts_slow():
    recipe = load(
        Recipe,
        ROOT / "examples/pretrain/qwen3_30b_a3b.yaml",
        [
            *("parallel.expert_model_parallel_size=16", "training.precision=bf16"),
            *("training.fp8_format=hybrid", "training.fp8_recipe=tensorwise"),
        ],
    )
    architecture = read_architecture(ROOT / "examples/pretrain/architectures/qwen3_30b_a3b.json")
    lines = expert_lines(architecture, recipe, 32, GPUS["h100-80gb"])
    assert lines[0].endswith("8 on each GPU (EP16), copies on 2 GPUs")
    assert "EP x ETP = 16 is more than the 8 GPUs of a node" in lines[1]
    assert "Experts in FP8" in lines[2]
    dense = read_architecture(ARCHITECTURE)
    assert expert_lines(dense, recipe, 32, GPUS["h100-80gb"]) == []


def test_the_layouts_of_experts_stay_within_their_number(capsys):
    """A dense model gets no keys of experts, a mixture sizes that divide its experts."""
    recipe = str(ROOT / "examples/pretrain/qwen3_30b_a3b.yaml")
    shape = f"model.architecture={ROOT}/examples/pretrain/architectures/qwen3_30b_a3b.json"
    words = [recipe, shape, "--gpus", "64", "--json", "--best", "50"]
    plan.main([*words, "training.precision=bf16"])
    sizes_in_order = []
    for one in json.loads(capsys.readouterr().out)["best"]:
        layout = dict(word.split("=", 1) for word in one["layout"])
        size = int(layout.get("parallel.expert_model_parallel_size", "1"))
        assert one["experts_per_gpu"] == 128 // size
        sizes_in_order.append(size)
    assert {4, 8, 16} <= set(sizes_in_order)
    assert sizes_in_order[0] <= 8, "tokens stay within a node"
