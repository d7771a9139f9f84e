"""Loss curves of bf16 and FP8 against fp32 on this machine, with the same weights and tokens.

    python benchmarks/loss_curves.py --steps 50

The bounds: over the second half of the steps the mean loss in bf16 is within 2 % of fp32's, in FP8
(hybrid, each recipe that the GPU has) within 4 %, also of a mixture of experts; every loss and
gradient norm is finite. Exit code 1 when one is not kept. Where there is no Transformer Engine, FP8
is left out and said so.
`make gpu-check` runs the variants at the same time.
"""

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from galen import cli  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from galen.errors import DataError, UsageError  # noqa: E402

FP8 = ["training.precision=bf16", "training.fp8_format=hybrid"]
FP32 = ["training.precision=fp32"]
BF16 = ["training.precision=bf16"]
TENSORWISE = [*FP8, "training.fp8_recipe=tensorwise"]
EXPERTS = "experts"
VARIANTS = {
    "fp32": (FP32, 0.0),
    "bf16": (BF16, 0.02),
    "fp8 delayed": ([*FP8, "training.fp8_recipe=delayed"], 0.04),
    "fp8 tensorwise": (TENSORWISE, 0.04),
    "fp8 blockwise": ([*FP8, "training.fp8_recipe=blockwise"], 0.04),
    f"{EXPERTS} fp32": (FP32, 0.0),
    f"{EXPERTS} bf16": (BF16, 0.02),
    f"{EXPERTS} fp8 tensorwise": (TENSORWISE, 0.04),
}
"""Keys and bound; those of a mixture of experts are compared with its own fp32."""
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 4096,
        "num_layers": 4,
        "hidden_size": 512,
        "ffn_hidden_size": 1536,
        "num_attention_heads": 8,
        "num_query_groups": 4,
        "kv_channels": 64,
    },
    "tiny": {
        "vocab_size": 304,
        "num_layers": 2,
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "kv_channels": 16,
    },
}
EXPERT_PROPERTIES: dict[str, Any] = {"num_moe_experts": 8, "moe_router_topk": 2}
LENGTHS = {"small": 256, "tiny": 32}
"""Sequence lengths; tiny is for CPUs."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    if arguments.variant:
        run_variant(arguments)
        return None
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in VARIANTS:
            try:
                print(f"{name}: {measure(name, Path(folder), arguments)}")
            except DataError as error:
                if name.endswith("fp32"):  # others are compared with it
                    raise
                failed.append(str(error))
    if failed:
        raise DataError("; ".join(failed))
    return None


def measure(name: str, work: Path, arguments: argparse.Namespace) -> str:
    """Run a variant in a new process; return its figures, or why the platform has no kernels.

    Raises:
        DataError: it failed, or exceeds its bound.
    """
    output = work / "result.json"
    command = [sys.executable, __file__, "--variant", name, "--work", str(work)]
    command += ["--output", str(output), "--steps", str(arguments.steps)]
    command += ["--size", arguments.size, *arguments.overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return str(json.loads(output.read_text(encoding="utf-8"))["summary"])
    lines = done.stderr.strip().splitlines() or [""]
    error = lines[-1].removeprefix("error: ")
    if done.returncode == UsageError.exit_code and "fp8" in name:
        return f"skipped, {error}"
    if done.returncode == DataError.exit_code:
        raise DataError(error)
    raise DataError(f"{name} failed:\n{done.stderr[-3000:]}")


def run_variant(arguments: argparse.Namespace) -> None:
    """Train in this process, write the curve and compare it with that of fp32.

    Raises:
        DataError: a value is not finite, or the difference exceeds the variant's bound.
    """
    losses, norms = train(arguments)
    mean = statistics.mean(losses[arguments.steps // 2 :])
    result = {"variant": arguments.variant, "mean": mean, "losses": losses, "norms": norms}
    bound = VARIANTS[arguments.variant][1]
    result["summary"] = f"loss {losses[0]:.4f} to {losses[-1]:.4f}"
    reference = arguments.work / f"{_prefix(arguments.variant)}fp32.json"
    if bound:
        expected = json.loads(reference.read_text(encoding="utf-8"))["mean"]
        result["difference"] = abs(mean - expected) / expected
        result["bound"] = bound
        result["summary"] += (
            f", mean of the second half {result['difference']:.2%} from fp32 (bound {bound:.0%})"
        )
    text = json.dumps(result, indent=1) + "\n"
    if arguments.output:
        write_text(arguments.output, text)
    if not all(math.isfinite(number) for number in losses + norms):
        raise DataError(f"{arguments.variant}: a loss or gradient norm is not finite: {losses}")
    if bound and not result["difference"] <= bound:
        raise DataError(
            f"{arguments.variant} is {result['difference']:.2%} from fp32, the bound is {bound:.0%}"
        )
    if not bound:
        write_text(reference, text)


def train(arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Return the losses and gradient norms of the variant's steps."""
    from train_gpu import LLAMA_3_8B, write_recipe

    from galen.recipe import load
    from megatron_ext import bootstrap
    from megatron_ext.config.architecture import read_architecture
    from megatron_ext.config.recipe import Recipe
    from megatron_ext.hardware import process_environment

    shape = dataclasses.replace(read_architecture(LLAMA_3_8B), **SIZES[arguments.size])
    prefix = _prefix(arguments.variant)
    if prefix:
        width = shape.ffn_hidden_size // 2
        shape = dataclasses.replace(shape, moe_ffn_hidden_size=width, **EXPERT_PROPERTIES)
    arguments.work.mkdir(parents=True, exist_ok=True)
    options = [
        *VARIANTS[arguments.variant][0],
        f"data.seq_length={LENGTHS[arguments.size]}",
        "training.micro_batch_size=4",
        "training.global_batch_size=8",
        "optimizer.lr=1e-3",
        "training.cross_entropy_loss_fusion=false",
        *arguments.overrides,
    ]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load(Recipe, write_recipe(Path(folder), "tiny"), options)
    with process_environment.applied(recipe):
        bootstrap()
        from synthetic_run import SyntheticRun, steps

        run = SyntheticRun(recipe, shape, weights=arguments.work / f"{prefix}weights.pt")
        results = list(steps(run, arguments.steps))
        run.platform.leave_distributed()
    return [step.loss for step in results], [step.grad_norm for step in results]


def _prefix(variant: str) -> str:
    """Return the prefix of the files that variants share: those of experts have their own."""
    return f"{EXPERTS}_" if variant.startswith(EXPERTS) else ""


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--steps", type=int, default=50, help="steps of each (default 50)")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--size", choices=SIZES, default="small", help="of the model; tiny is for CPUs [small]"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recipe keys, as of megatron_ext.pretrain"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
