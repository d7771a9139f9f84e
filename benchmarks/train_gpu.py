"""Speed of training on this machine's GPUs: tokens/s, model TFLOP/s, MFU, and what takes the time.

    python benchmarks/train_gpu.py --model llama_3_8b --precision fp8 \\
        --output benchmarks/results/llama_3_8b_fp8.json
    torchrun --nproc-per-node 8 benchmarks/train_gpu.py --model llama_3_8b --precision bf16 \\
        training.global_batch_size=128

Random weights, made-up text, sequence 8,192 and micro-batch 1 unless keys say otherwise. The median
step after the warm-up counts. MFU is against the dense bf16 peak of the GPUs, also in FP8. On one
80 GB GPU the 8B model does not fit with its optimizer: --fit reduces it to the layers that fit by
`galen plan`'s estimate, --layers to a number of your own; the figures are those of the reduced
model. `make gpu-check` runs this for the 1B and the 8B.
"""

import argparse
import dataclasses
import json
import os
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from galen import cli, manifest  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from galen.errors import UsageError  # noqa: E402
from galen.recipe import load  # noqa: E402
from megatron_ext import bootstrap  # noqa: E402
from megatron_ext.config.architecture import Architecture, read_architecture  # noqa: E402
from megatron_ext.config.recipe import Recipe  # noqa: E402
from megatron_ext.hardware import process_environment  # noqa: E402
from megatron_ext.planner import layout_search, memory_model  # noqa: E402
from megatron_ext.planner.gpus import GPUS  # noqa: E402

LLAMA_3_8B = ROOT / "examples/pretrain/architectures/mmed_llama3_8b.json"  # Llama 3 8B
# The shape of Llama 3.2 1B, output untied.
ONE_B: dict[str, Any] = {
    "num_layers": 16,
    "hidden_size": 2048,
    "ffn_hidden_size": 8192,
    "kv_channels": 64,
}
TINY = ROOT / "examples/pretrain/architectures/tiny.json"
PRECISIONS = {
    "fp32": ["training.precision=fp32", "training.cross_entropy_loss_fusion=false"],
    "bf16": ["training.precision=bf16"],
    "fp8": [
        "training.precision=bf16",
        "training.fp8_format=hybrid",
        "training.fp8_recipe=tensorwise",
        # else a bf16 copy of the weights beside the FP8 ones: 8B would not fit into an H200
        "training.fp8_param_gather=true",
    ],
}
PUBLISHED_NAMES = {"llama_3_8b": "Llama 3 8B"}
"""Models that `planner_fit.py` has published figures of."""
# What lets the 8B model and its optimizer fit: 6 bytes of state a weight instead of 12 and bf16
# gradients.
LEAN = [
    *("optimizer.use_precision_aware_optimizer=true", "optimizer.main_grads_dtype=bf16"),
    *("optimizer.exp_avg_dtype=bf16", "optimizer.exp_avg_sq_dtype=bf16"),
]


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    shape = architecture(arguments.model, arguments.layers)
    overrides = [
        *PRECISIONS[arguments.precision],
        *(LEAN if arguments.lean else []),
        *arguments.overrides,
    ]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load(Recipe, write_recipe(Path(folder), arguments.model), overrides)
    # before PyTorch is imported
    with process_environment.applied(recipe):
        bootstrap()
        import torch

        try:
            measure(arguments, recipe, shape)
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{arguments.model} does not fit: use --fit, fewer --layers, --lean, or more GPUs"
                f" (torchrun); {error}"
            ) from None


def measure(arguments: argparse.Namespace, recipe: Recipe, shape: Architecture) -> None:
    """Train, and print and write what was measured."""
    import torch
    from synthetic_run import SyntheticRun, steps

    from megatron_ext.hardware import platforms

    if arguments.fit:
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        platform = platforms.current_platform()
        shape = fitting_architecture(
            shape, recipe, world_size, platform.memory, fused=platform.transformer_engine
        )
    run = SyntheticRun(recipe, shape)
    taken = list(steps(run, arguments.warm_up + arguments.steps))
    seconds = statistics.median(step.seconds for step in taken[arguments.warm_up :])
    gpus = torch.distributed.get_world_size()
    rate = run.tokens_per_step / seconds / gpus
    flops = rate * shape.flops_per_token(run.recipe.data.seq_length)
    result: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "device": run.platform.device_name,
        "gpus": gpus,
        "model": dataclasses.asdict(shape) | {"parameters": shape.parameters},
        "all_layers": architecture(arguments.model, None).num_layers,
        "precision": arguments.precision,
        "seconds_per_step": seconds,
        "tokens_per_second_per_gpu": rate,
        "model_tflops_per_gpu": flops / 1e12,
        "mfu": None if run.platform.peak_flops is None else flops / run.platform.peak_flops,
        "peak_memory_gib": run.platform.peak_memory / 2**30,
        "losses": [step.loss for step in taken],
        "planned": planned(shape, recipe, gpus, run.platform),
        "published": published(arguments.model, arguments.precision),
        "versions": manifest.versions(),
    }
    _write(result, arguments.output)  # a profile of a large model may not fit
    if arguments.profile or run.recipe.profile:
        with tempfile.TemporaryDirectory() as folder:
            output = arguments.output and arguments.output.with_suffix(".profile")
            result["slowest"] = profile(run, output or Path(folder))
        _write(result, arguments.output)
    if torch.distributed.get_rank() == 0:
        print(json.dumps(result, indent=1))
    run.platform.leave_distributed()


def _write(result: dict[str, Any], path: Path | None) -> None:
    """Write the result so far, on rank 0."""
    import torch

    if path is not None and torch.distributed.get_rank() == 0:
        write_text(path, json.dumps(result, indent=1) + "\n")


def planned(
    shape: Architecture, recipe: Recipe, gpus: int, platform: Any
) -> dict[str, float] | None:
    """Return what `galen plan` expects of the run.

    None for a GPU that it does not know, and without Transformer Engine, which it assumes.
    """
    specs = [spec for spec in GPUS.values() if spec.device_name == platform.device_name]
    if not specs or not platform.transformer_engine:
        return None
    estimate = layout_search.estimate(shape, recipe, gpus, specs[0])
    return {
        "tokens_per_second_per_gpu": estimate.tokens_per_second_per_gpu,
        # without the reserve, as PyTorch counts
        "memory_gib": max(stage.total for stage in estimate.stages) / 2**30,
    }


def published(model: str, precision: str) -> list[str]:
    """Return published figures of a model, one a line."""
    from planner_fit import groups

    runs_by_use = groups()
    return [
        f"{run.tokens:,.0f} tokens/s/GPU, {run.gpus} {run.gpu}, sequence {run.length:,},"
        f" {run.layout} ({run.source})"
        for use in ("fitted", "held out", "other engines")
        for run in runs_by_use[use]
        if run.model == PUBLISHED_NAMES.get(model) and run.precision.lower() == precision
    ]


def architecture(model: str, layers: int | None) -> Architecture:
    """Return the shape of the model, cut to `layers` where they are given."""
    shape = read_architecture(TINY if model == "tiny" else LLAMA_3_8B)
    if model == "llama_1b":
        shape = dataclasses.replace(shape, **ONE_B)
    if layers is not None:
        if not 1 <= layers <= shape.num_layers:
            raise UsageError(f"--layers must be between 1 and {shape.num_layers}")
        shape = dataclasses.replace(shape, num_layers=layers)
    return shape


def fitting_architecture(
    shape: Architecture, recipe: Recipe, gpus: int, memory: float, *, fused: bool
) -> Architecture:
    """Return the model with as many layers as fit into `memory` bytes of each GPU, by the plan.

    PyTorch's layers keep more activations than Transformer Engine's, which are `fused`.

    Raises:
        UsageError: not even one layer for each pipeline stage fits.
    """
    stages = recipe.parallel.pipeline_model_parallel_size
    for layers in range(shape.num_layers, 0, -1):
        if layers % stages:
            continue
        smaller = dataclasses.replace(shape, num_layers=layers)
        fullest = max(
            memory_model.stage_memory(smaller, recipe, gpus, stage, fused).total
            for stage in range(stages)
        )
        if fullest + memory_model.RESERVE <= memory:
            return smaller
    raise UsageError(f"no layer fits into {memory / 2**30:.0f} GiB; use --lean or more GPUs")


def write_recipe(folder: Path, model: str) -> Path:
    """Write the recipe that the overrides change and return its path."""
    tiny = model == "tiny"
    recipe = {
        "output": str(folder),
        "model": {"checkpoint": "none"},
        "data": {"train": ["none"], "seq_length": 32 if tiny else 8192},
        "training": {
            "train_iters": 1000,
            "global_batch_size": 8,
            "eval_iters": 0,
            "cross_entropy_loss_fusion": not tiny,
        },
        "optimizer": {"lr": 1e-4, "lr_warmup_iters": 10},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def profile(run: Any, folder: Path) -> list[dict[str, Any]]:
    """Profile a step by the mechanism and the `profile` keys of `megatron_ext.pretrain`.

    Args:
        run: a SyntheticRun.
        folder: of the trace and the table.

    Returns the operations that take most of the time.
    """
    import torch

    from megatron_ext.config.run_sections import Profile
    from megatron_ext.observability.step_profiler import StepProfiler

    options = run.recipe.profile or Profile(steps=(2, 2))
    with StepProfiler(
        options, folder, torch.distributed.get_rank(), run.train_step.timers
    ) as profiler:
        for step in range(1, options.steps[1] + 1):
            profiler.before_step(step)
            run.step()
            profiler.after_step()
    return profiler.slowest


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--model",
        choices=["llama_3_8b", "llama_1b", "tiny"],
        default="llama_3_8b",
        help="tiny is for CPUs",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="default bf16")
    parser.add_argument("--layers", type=int, help="reduce the model to this many layers")
    parser.add_argument(
        "--fit", action="store_true", help="reduce the model to the layers that fit into the memory"
    )
    parser.add_argument(
        "--lean",
        action="store_true",
        help="bf16 gradients and optimizer state (Transformer Engine)",
    )
    parser.add_argument(
        "--warm-up", type=int, default=5, help="steps before the timed ones (default 5)"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default 20)")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also profile a step (profile.* chooses others): list the slowest operations; write"
        " the trace beside --output",
    )
    parser.add_argument("--output", type=Path, help="also write the result to this file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recipe keys, as of megatron_ext.pretrain"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
