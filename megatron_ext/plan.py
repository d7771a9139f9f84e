r"""Estimate a pretraining run's memory and throughput before launching it.

    galen plan examples/pretrain/meditron_70b.yaml \
        examples/pretrain/layouts/70b_h100_bf16.yaml --gpus 128 --gpu h100-80gb

Shows the memory of each pipeline stage, whether it fits, the time of a step and of the run,
communication volumes, and the fastest layouts that fit. It needs no GPU, and no checkpoint if the
recipe has model.architecture. How good the estimates are: docs/planning.md.

    galen plan RUN/recipe.yaml --compare RUN

shows them beside what the run measured.

Exit codes: 0 the recipe's layout fits, 3 it does not fit into the GPUs' memory, 4 it is impossible
(the output has the reason and layouts that fit); 1 invalid file, 2 invalid command or recipe.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from galen import cli, recipe
from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.run_architecture import architecture_from_model
from megatron_ext.planner import experts, memory_model, model_state
from megatron_ext.planner.gpus import GPUS, GpuSpec
from megatron_ext.planner.layout_search import Estimate, best, estimate, overrides, search
from megatron_ext.planner.plan_lines import (
    cost_lines,
    expert_lines,
    lower_rate_lines,
    parameters_line,
    short_number,
    table,
)
from megatron_ext.planner.run_cost import RunCost

GIB = 2**30
DOES_NOT_FIT = 3
"""Exit code if the recipe's layout exceeds the GPUs' memory; 1 and 2 are those of all commands."""
IMPOSSIBLE = 4
"""Exit code if the recipe's layout cannot divide the model or the batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a number of GPUs, with the estimates of its own layout and of all others."""

    recipe: Recipe
    architecture: Architecture
    gpus: int
    gpu_name: str
    estimate: Estimate | None
    """Of the recipe's layout; None if it is impossible."""
    refusal: str | None
    """Why it is impossible."""
    possible: list[Estimate]
    """All possible layouts, the fastest first."""

    @property
    def gpu(self) -> GpuSpec:
        """Specification of the GPUs."""
        return GPUS[self.gpu_name]


def main(argv: list[str] | None = None) -> int | None:
    """Run the command; return 0 if the layout fits, else `DOES_NOT_FIT` or `IMPOSSIBLE`."""
    parser = cli.recipe_parser(__doc__ or "", Recipe)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--gpus", type=int, metavar="N", help="number of GPUs")
    size.add_argument(
        "--compare",
        type=Path,
        metavar="RUN",
        help="compare with the log of this run folder, for the run's number and type of GPUs",
    )
    parser.add_argument("--gpu", choices=sorted(GPUS), help="GPU type [h100-80gb]")
    parser.add_argument(
        "--mtbf-hours",
        type=float,
        metavar="H",
        help="mean time between failures of the run [Llama 3's rate: 1 in 2,112 GPU-days]",
    )
    parser.add_argument(
        "--best", type=int, metavar="N", help="number of fastest layouts to show [5]"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: sizes in bytes, times in seconds"
    )
    arguments = parser.parse_intermixed_args(argv)
    if arguments.gpus is not None and arguments.gpus < 1:
        raise UsageError(f"--gpus {arguments.gpus}: must be at least 1")
    mtbf = arguments.mtbf_hours
    if mtbf is not None and not (mtbf > 0 and math.isfinite(mtbf)):
        raise UsageError(f"--mtbf-hours {mtbf}: must be above 0")
    run = recipe.load(Recipe, arguments.recipe, arguments.overrides)
    if arguments.compare is not None:
        return _compare(run, arguments)
    plan = make_plan(run, arguments.gpus, arguments.gpu or "h100-80gb", mtbf)
    count = 5 if arguments.best is None else arguments.best
    if arguments.json:
        print(json.dumps(_as_json(plan, count), indent=1))
    else:
        print(_as_text(plan, count))
    if plan.estimate is None:
        return IMPOSSIBLE
    return 0 if plan.estimate.fits else DOES_NOT_FIT


def _compare(run: Recipe, arguments: argparse.Namespace) -> int:
    """Print the plan of a run's layout beside the run's figures."""
    from megatron_ext.planner import comparison

    if arguments.gpu is not None:
        raise UsageError("--gpu and --compare are incompatible: the run's GPUs are in its log")
    if arguments.best is not None:
        raise UsageError("--best and --compare are incompatible: only the run's layout is planned")
    measured = comparison.measured(arguments.compare, run)
    architecture = architecture_from_model(run.model)
    planned = estimate(
        architecture, run, measured.gpus, GPUS[measured.gpu_name], arguments.mtbf_hours
    )
    figures = comparison.compare(planned, measured)
    if arguments.json:
        result = {
            "gpus": measured.gpus,
            "gpu": measured.gpu_name,
            "steps": measured.steps,
            "figures": comparison.to_dict(figures),
        }
        print(json.dumps(result, indent=1))
        return 0
    print(
        f"{arguments.compare}: {measured.gpus} x {measured.gpu_name}, medians of the last"
        f" {measured.steps} logged steps"
    )
    heads = ["", "planned", "measured", "planned / measured - 1"]
    print("\n".join(table(heads, comparison.rows(figures))))
    return 0


def make_plan(run: Recipe, gpus: int, gpu_name: str, mtbf_hours: float | None = None) -> Plan:
    """Return the estimates of a run's layout and of all possible ones."""
    architecture = architecture_from_model(run.model)
    gpu = GPUS[gpu_name]
    own: Estimate | None = None
    refusal = None
    try:
        own = estimate(architecture, run, gpus, gpu, mtbf_hours)
    except UsageError as error:
        refusal = str(error)
    return Plan(
        recipe=run,
        architecture=architecture,
        gpus=gpus,
        gpu_name=gpu_name,
        estimate=own,
        refusal=refusal,
        possible=search(architecture, run, gpus, gpu, mtbf_hours),
    )


def _as_json(plan: Plan, count: int) -> dict[str, Any]:
    return {
        "parameters": plan.architecture.parameters,
        "active_parameters": plan.architecture.active_parameters,
        "gpus": plan.gpus,
        "gpu": plan.gpu_name,
        "reserve": memory_model.RESERVE,
        "recipe": None if plan.estimate is None else _figures(plan, plan.estimate),
        "refused": plan.refusal,
        "best": [_figures(plan, one) for one in best(plan.possible, count)],
    }


def _figures(plan: Plan, one: Estimate) -> dict[str, Any]:
    stages = [{**dataclasses.asdict(stage), "total": stage.total} for stage in one.stages]
    return {
        "layout": overrides(one.recipe, plan.recipe),
        "experts_per_gpu": experts.num_local_experts(plan.architecture, one.recipe) or None,
        "fits": one.fits,
        "memory": one.memory,
        "stages": stages,
        "step_seconds": one.step.total,
        "step_parts": dataclasses.asdict(one.step),
        "tokens_per_second_per_gpu": one.tokens_per_second_per_gpu,
        "lower_tokens_per_second_per_gpu": one.lower_tokens_per_second_per_gpu,
        "mfu": one.mfu,
        "cost": _cost_figures(one.cost),
        "upper_cost": None if one.upper_cost is None else _cost_figures(one.upper_cost),
        "sent_per_step": dataclasses.asdict(one.comm_volume),
    }


def _cost_figures(cost: RunCost) -> dict[str, Any]:
    figures = {**dataclasses.asdict(cost), "goodput": cost.goodput}
    # a run that fails too often to end: JSON has no infinity
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _as_text(plan: Plan, count: int) -> str:
    training = plan.recipe.training
    seq_length = plan.recipe.data.seq_length
    tokens = training.train_iters * training.global_batch_size * seq_length
    lines = [
        (
            f"{parameters_line(plan.architecture)}, {short_number(tokens)} tokens,"
            f" {plan.gpus} x {plan.gpu_name}"
        ),
        f"{training.train_iters:,} steps of {training.global_batch_size} x {seq_length} tokens",
    ]
    if plan.estimate is None:
        lines += ["", f"The recipe's layout is impossible: {plan.refusal}", ""]
    else:
        lines += [*expert_lines(plan.architecture, plan.recipe, plan.gpus, plan.gpu), ""]
        lines += _memory_lines(plan, plan.estimate)
        lines += _speed_lines(plan, plan.estimate)
    ranked = best(plan.possible, count)
    if not ranked:
        return "\n".join([*lines, _none_fits(plan)])
    lines.append("Fastest layouts that fit (with the recipe's batch and precision):")
    lines += table(_columns(plan.architecture), [_row(one, plan) for one in ranked])
    own = plan.estimate
    if own is not None and own.fits and own.step.total <= ranked[0].step.total:
        lines.append("None is faster than the recipe's layout.")
    words = " ".join(overrides(ranked[0].recipe, plan.recipe))
    return "\n".join([*lines, "", f"Overrides of the first: {words}"])


def _none_fits(plan: Plan) -> str:
    where = f"{plan.gpus} x {plan.gpu_name}"
    if not plan.possible:
        return (
            "No layout divides the model and a batch of"
            f" {plan.recipe.training.global_batch_size} over {where}: change --gpus or"
            " training.global_batch_size"
        )
    least = min(one.memory for one in plan.possible) / GIB
    return (
        f"No layout fits on {where}; the smallest needs {least:.1f} GiB per GPU: use more GPUs or a"
        " shorter data.seq_length"
    )


def _columns(architecture: Architecture) -> list[str]:
    return [
        *("TP", "PP", "VP", "CP", "DP"),
        *(["EP"] if architecture.is_moe else []),
        *("micro", "recompute", "GiB", "s/step", "tokens/s/GPU", "MFU", "days"),
    ]


def _row(one: Estimate, plan: Plan) -> list[str]:
    parallel = one.recipe.parallel
    training = one.recipe.training
    recompute: str = training.recompute_granularity or "-"
    if training.recompute_modules:
        recompute = ",".join(training.recompute_modules)
    return [
        str(parallel.tensor_model_parallel_size),
        str(parallel.pipeline_model_parallel_size),
        str(parallel.virtual_pipeline_model_parallel_size or "-"),
        str(parallel.context_parallel_size),
        str(model_state.data_parallel_size(one.recipe, plan.gpus)),
        *([str(parallel.expert_model_parallel_size)] if plan.architecture.is_moe else []),
        str(training.micro_batch_size),
        recompute,
        f"{one.memory / GIB:.1f}",
        f"{one.step.total:.2f}",
        f"{one.tokens_per_second_per_gpu:,.0f}",
        f"{one.mfu:.1%}",
        f"{one.cost.days:,.1f}",
    ]


_MEMORY = ("weights", "gradients", "optimizer", "activations", "logits", "total")
"""Columns of the memory table, in GiB."""
_MEMORY_OF_EXPERTS = (*_MEMORY[:4], "dispatch", *_MEMORY[4:])


def _memory_lines(plan: Plan, one: Estimate) -> list[str]:
    """Return the table of each pipeline stage's memory, and whether it fits."""
    rows = []
    columns = _MEMORY_OF_EXPERTS if plan.architecture.is_moe else _MEMORY
    for number, stage in enumerate(one.stages):
        row = [str(number), str(stage.layers), f"{stage.parameters / 1e6:,.0f}M"]
        row += [f"{getattr(stage, name) / GIB:.1f}" for name in columns]
        rows.append(row)
    in_step = [
        stage.optimizer_step
        for stage in one.stages
        if stage.optimizer_step > stage.activations + stage.dispatch + stage.logits
    ]
    notes = []
    if in_step:
        notes = [
            f"The peak is the optimizer's step, with {max(in_step) / GIB:.1f} GiB of float32"
            " gradients instead of activations and logits"
        ]
    heads = ["stage", "layers", "parameters", *columns[:-1], "total GiB"]
    return [
        "Memory of each rank, by pipeline stage (GiB):",
        *table(heads, rows),
        *notes,
        (
            f"{one.memory / GIB:.1f} GiB on the fullest rank, with"
            f" {memory_model.RESERVE / GIB:.0f} GiB for CUDA and NCCL:"
            f" {'fits' if one.fits else 'DOES NOT FIT'} into {plan.gpu.memory / GIB:.1f} GiB"
        ),
        "",
    ]


def _speed_lines(plan: Plan, one: Estimate) -> list[str]:
    """Return the step time, throughput, communication volume and checkpoint size."""
    seconds = {
        name: value
        for name, value in dataclasses.asdict(one.step).items()
        if value >= 0.005 * one.step.total
    }
    breakdown = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    volumes = {name: size for name, size in dataclasses.asdict(one.comm_volume).items() if size}
    sent = ", ".join(f"{name} parallel {size / GIB:.1f}" for name, size in volumes.items())
    checkpoint = model_state.checkpoint_bytes(plan.architecture, one.recipe)
    staging = model_state.checkpoint_staging(plan.architecture, one.recipe, plan.gpus)
    staging *= min(plan.gpu.per_node, plan.gpus)
    return [
        f"Step: {one.step.total:.2f} s ({breakdown})",
        f"{one.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, MFU {one.mfu:.1%}",
        *lower_rate_lines(one),
        *cost_lines(one),
        f"Sent by a rank per step, GiB: {sent or 'nothing'}",
        (
            f"A checkpoint has {checkpoint / GIB:,.1f} GiB; a node needs {staging / GIB:,.1f} GiB"
            " of memory while the last one is written"
        ),
        "",
    ]


if __name__ == "__main__":
    cli.run(main)
