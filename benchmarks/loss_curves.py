"""Loss curves of bf16 and FP8 against fp32 on this machine, with the same weights and tokens.

    python benchmarks/loss_curves.py --steps 50

The bounds: over the second half of the steps the mean loss in bf16 is within 2 % of fp32's, in FP8
(hybrid, each recipe that the GPU has) within 4 %; every loss and gradient norm is finite. Exit code
1 when one is not kept. Where there is no Transformer Engine, FP8 is left out and said so.
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
from galen.errors import DataError, UsageError  # noqa: E402

FP8 = ["training.precision=bf16", "training.fp8_format=hybrid"]
VARIANTS = {
    "fp32": (["training.precision=fp32"], 0.0),
    "bf16": (["training.precision=bf16"], 0.02),
    "fp8 delayed": ([*FP8, "training.fp8_recipe=delayed"], 0.04),
    "fp8 tensorwise": ([*FP8, "training.fp8_recipe=tensorwise"], 0.04),
    "fp8 blockwise": ([*FP8, "training.fp8_recipe=blockwise"], 0.04),
}
SIZE: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 512,
    "ffn_hidden_size": 1536,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "kv_channels": 64,
}


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    if arguments.variant:
        run_variant(arguments)
        return None
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in VARIANTS:
            curve = measure(name, Path(folder), arguments)
            if curve is not None:
                curves[name] = curve
    reference = statistics.mean(curves["fp32"][arguments.steps // 2 :])
    failed = []
    for name, losses in curves.items():
        mean = statistics.mean(losses[arguments.steps // 2 :])
        bound = VARIANTS[name][1]
        difference = abs(mean - reference) / reference
        print(
            f"{name}: first {losses[0]:.4f}, last {losses[-1]:.4f}, mean of the second half"
            f" {mean:.4f}, {difference:.2%} from fp32"
        )
        if not difference <= bound:
            failed.append(f"{name} is {difference:.2%} from fp32, the bound is {bound:.0%}")
    if failed:
        raise DataError("; ".join(failed))
    return None


def measure(name: str, work: Path, arguments: argparse.Namespace) -> list[float] | None:
    """Return a variant's losses, from a new process; None if the platform has no kernels for it."""
    command = [
        sys.executable,
        __file__,
        "--variant",
        name,
        "--work",
        str(work),
        "--steps",
        str(arguments.steps),
        *arguments.overrides,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == UsageError.exit_code and name.startswith("fp8"):
        print(f"{name}: skipped, {done.stderr.strip().splitlines()[-1].removeprefix('error: ')}")
        return None
    if done.returncode:
        raise DataError(f"{name} failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if not all(math.isfinite(number) for number in result["losses"] + result["norms"]):
        raise DataError(f"{name}: a loss or a gradient's norm is not finite: {result}")
    return result["losses"]


def run_variant(arguments: argparse.Namespace) -> None:
    """Train in that process and print the losses and norms."""
    from train_gpu import LLAMA_3_8B, write_recipe

    from galen.recipe import load
    from megatron_ext import bootstrap
    from megatron_ext.config.architecture import read_architecture
    from megatron_ext.config.recipe import Recipe
    from megatron_ext.hardware import process_environment

    shape = dataclasses.replace(read_architecture(LLAMA_3_8B), vocab_size=4096, **SIZE)
    options = [
        *VARIANTS[arguments.variant][0],
        "data.seq_length=256",
        "training.micro_batch_size=4",
        "training.global_batch_size=8",
    ]
    options += [
        "optimizer.lr=1e-3",
        "training.cross_entropy_loss_fusion=false",
        *arguments.overrides,
    ]
    recipe = load(Recipe, write_recipe(arguments.work, "tiny"), options)
    with process_environment.applied(recipe):
        bootstrap()
        from synthetic_run import SyntheticRun, steps

        run = SyntheticRun(recipe, shape, weights=arguments.work / "weights.pt")
        results = list(steps(run, arguments.steps))
        run.platform.leave_distributed()
    print(
        json.dumps(
            {
                "losses": [step.loss for step in results],
                "norms": [step.grad_norm for step in results],
            }
        )
    )


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--steps", type=int, default=50, help="steps of each (default 50)")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recipe keys, as of megatron_ext.pretrain"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
