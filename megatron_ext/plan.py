r"""Estimate a pretraining run's memory and throughput before launching it.

    galen plan examples/pretrain/meditron_70b.yaml \
        examples/pretrain/layouts/70b_h100_bf16.yaml --gpus 128 --gpu h100-80gb

Shows the memory of each pipeline stage, whether it fits, the time of a step and of the run,
communication volumes, and the fastest layouts that fit. It needs no GPU, and no checkpoint if the
recipe has model.architecture. How good the estimates are: docs/planning.md.

Exit codes: 0 the recipe's layout fits, 3 it does not fit into the GPUs' memory, 4 it is impossible
(the output has the reason and layouts that fit); 1 invalid file, 2 invalid command or recipe.
"""

import argparse
import dataclasses
import json
from typing import Any

from galen import cli, recipe
from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture, architecture_from_model
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory_model
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.layout_search import Estimate, best, estimate, overrides, search

GIB = 2**30
DOES_NOT_FIT, IMPOSSIBLE = 3, 4
"""Exit codes; 1 and 2 are those of all commands."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command; return 0 if the layout fits, else `DOES_NOT_FIT` or `IMPOSSIBLE`."""
    parser = cli.recipe_parser(__doc__ or "", Recipe)
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs of the run")
    parser.add_argument(
        "--gpu", default="h100-80gb", choices=sorted(GPUS), help="their type [h100-80gb]"
    )
    parser.add_argument(
        "--best", type=int, default=5, metavar="N", help="fastest layouts to show [5]"
    )
    parser.add_argument(
        "--json", action="store_true", help="for machines: sizes in bytes, times in seconds"
    )
    arguments = parser.parse_intermixed_args(argv)
    if arguments.gpus < 1:
        raise UsageError(f"--gpus {arguments.gpus}: at least 1")
    run = recipe.load(Recipe, arguments.recipe, arguments.overrides)
    architecture = architecture_from_model(run.model.checkpoint, run.model.architecture)
    gpu = GPUS[arguments.gpu]
    try:
        found: Estimate | None = estimate(architecture, run, arguments.gpus, gpu)
        refused = None
    except UsageError as error:
        found, refused = None, str(error)
    possible = search(architecture, run, arguments.gpus, gpu)
    if arguments.json:
        print(
            json.dumps(_as_json(arguments, architecture, run, found, refused, possible), indent=1)
        )
    else:
        print(_as_text(arguments, architecture, run, found, refused, possible))
    if found is None:
        return IMPOSSIBLE
    return 0 if found.fits else DOES_NOT_FIT


def _as_json(
    arguments: argparse.Namespace,
    architecture: Architecture,
    run: Recipe,
    found: Estimate | None,
    refused: str | None,
    possible: list[Estimate],
) -> dict[str, Any]:
    return {
        "parameters": architecture.parameters,
        "gpus": arguments.gpus,
        "gpu": arguments.gpu,
        "reserve": memory_model.RESERVE,
        "recipe": None if found is None else _figures(found, run),
        "refused": refused,
        "best": [_figures(one, run) for one in best(possible, arguments.best)],
    }


def _figures(one: Estimate, run: Recipe) -> dict[str, Any]:
    stages = [{**dataclasses.asdict(stage), "total": stage.total} for stage in one.stages]
    return {
        "layout": overrides(one.recipe, run),
        "fits": one.fits,
        "memory": one.memory,
        "stages": stages,
        "step_seconds": one.step.total,
        "step_parts": dataclasses.asdict(one.step),
        "tokens_per_second_per_gpu": one.tokens_per_second_per_gpu,
        "mfu": one.mfu,
        "days": one.days,
        "sent_per_step": dataclasses.asdict(one.comm_volume),
    }


def _as_text(
    arguments: argparse.Namespace,
    architecture: Architecture,
    run: Recipe,
    found: Estimate | None,
    refused: str | None,
    possible: list[Estimate],
) -> str:
    tokens = run.training.train_iters * run.training.global_batch_size * run.data.seq_length
    lines = [
        (
            f"{_count(architecture.parameters)} parameters, {_count(tokens)} tokens,"
            f" {arguments.gpus} x {arguments.gpu}"
        ),
        (
            f"{run.training.train_iters:,} steps of {run.training.global_batch_size} x"
            f" {run.data.seq_length} tokens"
        ),
        "",
    ]
    lines += (
        [f"The recipe's layout is not possible: {refused}", ""]
        if found is None
        else _recipe_lines(architecture, found, arguments)
    )
    ranked = best(possible, arguments.best)
    if not ranked:
        return "\n".join([*lines, _none_fits(arguments, run, possible)])
    lines.append("Fastest layouts that fit (the batch and the precision as in the recipe):")
    lines += table(
        [
            "TP",
            "PP",
            "VP",
            "CP",
            "DP",
            "micro",
            "recompute",
            "GiB",
            "s/step",
            "tokens/s/GPU",
            "MFU",
            "days",
        ],
        [_row(one, arguments.gpus) for one in ranked],
    )
    lines += [
        "",
        f"The first as words of the command line: {' '.join(overrides(ranked[0].recipe, run))}",
    ]
    return "\n".join(lines)


def _none_fits(arguments: argparse.Namespace, run: Recipe, possible: list[Estimate]) -> str:
    where = f"{arguments.gpus} x {arguments.gpu}"
    if not possible:
        batch = run.training.global_batch_size
        return (
            f"No layout divides the model and a batch of {batch} over {where}: take another number"
            " of GPUs, or another batch"
        )
    least = min(one.memory for one in possible) / GIB
    return (
        f"No layout fits on {where}, the smallest needs {least:.1f} GiB: take more GPUs, or shorter"
        " sequences"
    )


def _count(number: int) -> str:
    return f"{number / 1e9:,.2f}B" if number >= 1e9 else f"{number / 1e6:,.2f}M"


def _recipe_lines(
    architecture: Architecture, one: Estimate, arguments: argparse.Namespace
) -> list[str]:
    gpu = GPUS[arguments.gpu]
    heads = [
        "stage",
        "layers",
        "parameters",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "logits",
        "total GiB",
    ]
    rows = []
    for number, stage in enumerate(one.stages):
        sizes = (
            stage.weights,
            stage.gradients,
            stage.optimizer,
            stage.activations,
            stage.logits,
            stage.total,
        )
        rows.append(
            [
                str(number),
                str(stage.layers),
                f"{stage.parameters / 1e6:,.0f}M",
                *(f"{size / GIB:.1f}" for size in sizes),
            ]
        )
    parts = {
        name: seconds
        for name, seconds in dataclasses.asdict(one.step).items()
        if seconds >= 0.005 * one.step.total
    }
    sent = {name: size for name, size in dataclasses.asdict(one.comm_volume).items() if size}
    comm_volume = [f"{name} parallel {size / GIB:.1f}" for name, size in sent.items()]
    verdict = "fits" if one.fits else "DOES NOT FIT"
    checkpoint = memory_model.checkpoint_bytes(architecture, one.recipe)
    staging = memory_model.checkpoint_staging(architecture, one.recipe) * min(
        gpu.per_node, arguments.gpus
    )
    return [
        "Memory of each rank, by pipeline stage (GiB):",
        *table(heads, rows),
        (
            f"{one.memory / GIB:.1f} GiB on the fullest rank with {memory_model.RESERVE / GIB:.0f}"
            f" GiB for CUDA and NCCL: {verdict} into {gpu.memory / GIB:.1f} GiB"
        ),
        "",
        (
            f"Step: {one.step.total:.2f} s"
            f" ({', '.join(f'{name} {seconds:.2f}' for name, seconds in parts.items())})"
        ),
        (
            f"{one.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, MFU {one.mfu:.1%}, {one.days:,.1f}"
            " days to the last step"
        ),
        f"Sent by a rank in a step, GiB: {', '.join(comm_volume) or 'nothing'}",
        (
            f"A checkpoint has {checkpoint / GIB:,.1f} GiB, and takes {staging / GIB:,.1f} GiB of a"
            " node's memory while it is written"
        ),
        "",
    ]


def _row(one: Estimate, gpus: int) -> list[str]:
    parallel, training = one.recipe.parallel, one.recipe.training
    return [
        str(parallel.tensor_model_parallel_size),
        str(parallel.pipeline_model_parallel_size),
        str(parallel.virtual_pipeline_model_parallel_size or "-"),
        str(parallel.context_parallel_size),
        str(memory_model.data_parallel_size(one.recipe, gpus)),
        str(training.micro_batch_size),
        training.recompute_granularity or "-",
        f"{one.memory / GIB:.1f}",
        f"{one.step.total:.2f}",
        f"{one.tokens_per_second_per_gpu:,.0f}",
        f"{one.mfu:.1%}",
        f"{one.days:,.1f}",
    ]


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return lines of right-aligned columns."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]


if __name__ == "__main__":
    cli.run(main)
