"""Checkpoint stall, failures and validations in the time of a run."""

import pytest

from benchmarks.planner_fit import MODELS
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.observability import save_interval
from megatron_ext.planner.run_cost import (
    RESTART_SECONDS,
    checkpoint_stall,
    default_mtbf_hours,
    run_cost,
)
from tests.conftest import ROOT

L8 = MODELS["Llama 3 8B"]
L70 = MODELS["Llama 3 70B"]


def run(*overrides):
    file = ROOT / "examples/pretrain/meditron_70b.yaml"
    return load(Recipe, file, ["training.async_save=true", *overrides])


def test_the_stall_documented_for_8b_and_70b():
    assert checkpoint_stall(L8, run(), 8) == pytest.approx(3.6, abs=0.1)
    assert checkpoint_stall(L70, run(), 64) == pytest.approx(3.8, abs=0.1)


def test_what_makes_a_save_longer():
    fast = checkpoint_stall(L8, run(), 8)
    # 14 GB of each process are hashed before training continues
    assert checkpoint_stall(L8, run("training.async_save=false"), 8) == pytest.approx(
        fast + 20.1, abs=0.1
    )
    gathered = "training.dist_ckpt_optim_fully_reshardable=always"
    assert checkpoint_stall(L8, run(gathered), 8) == pytest.approx(fast + 96.4, abs=0.1)
    assert checkpoint_stall(
        L8, run(gathered, "parallel.tensor_model_parallel_size=8"), 8
    ) == pytest.approx(fast + 12.1, abs=0.1)


def test_failures_at_the_rate_of_llama_3():
    """419 in 54 days on 16,384 GPUs."""
    assert default_mtbf_hours(16384) == pytest.approx(54 * 24 / 419)
    assert default_mtbf_hours(128) == pytest.approx(396, abs=1)


def test_the_parts_of_the_time():
    recipe = run("training.eval_iters=0")
    cost = run_cost(L70, recipe, 64, step_seconds=20.0, mtbf_hours=24)
    assert cost.validation_fraction == 0
    overhead = save_interval.overhead(250 * 20.0, cost.stall_seconds, 86400, RESTART_SECONDS)
    assert cost.goodput == pytest.approx(1 - overhead)
    assert cost.days == pytest.approx(23000 * 20 / cost.goodput / 86400)
    assert cost.gpu_hours == pytest.approx(64 * 24 * cost.days)
    best = save_interval.optimum(cost.stall_seconds, 86400)
    assert cost.save_interval == round(best / 20)
    # saves every 500 s instead, and none of them in vain
    often = run_cost(L70, run("training.eval_iters=0", "training.save_interval=25"), 64, 20.0, 24)
    assert often.stall_fraction > cost.stall_fraction
    assert often.failure_fraction < cost.failure_fraction


def test_validations_of_three_sources():
    """47 of 10 batches for each of three sources, a third of a step each."""
    cost = run_cost(L70, run(), 64, step_seconds=20.0, mtbf_hours=1e9)
    validation = 47 * 10 * 3 / 3
    assert cost.validation_fraction == pytest.approx(validation / (23000 + validation), rel=0.01)


def test_a_run_that_fails_more_often_than_it_saves_never_ends():
    cost = run_cost(L70, run(), 64, step_seconds=20.0, mtbf_hours=0.002)
    assert cost.days == float("inf") and cost.goodput == pytest.approx(0)
