"""Train some steps under a layout of several GPUs, and compare the losses with those of one GPU.

`make gpu-check` starts one process for each rank, with torchrun's variables:

    python benchmarks/gpu_check/layouts.py --layout tp_sp --work DIR    # DIR/megatron, DIR/tokens

All runs read the same packed documents.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from galen import cli  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from galen.errors import DataError  # noqa: E402
from gpu_check.small_run import SIZES, read_log, write_recipe  # noqa: E402

_TP_SP = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
LAYOUTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "tp_sp": _TP_SP,
    "pp": {"pipeline_model_parallel_size": 2},
    "cp": {"context_parallel_size": 2},
    "tp_userbuffers": {**_TP_SP, "tp_comm_overlap": True},
    "tp_pp_cp": {**_TP_SP, "pipeline_model_parallel_size": 2, "context_parallel_size": 2},
}
STEPS = 4
BOUNDS = {"fp32": (1e-5, 1e-4), "bf16": (0.005, 0.05)}
"""Largest relative differences of losses and of gradient norms, by precision."""


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", choices=SIZES, default="small", help="tiny is for CPUs [small]")
    parser.add_argument("--output", type=Path, help="also write the result to this JSON file")
    arguments = parser.parse_args(argv)
    # a new folder for each start, the same for all of its ranks
    start = os.environ.get("MASTER_PORT", str(os.getpid()))
    run = arguments.work / "parallel" / f"{arguments.layout}_{start}"
    train(arguments, run)
    if os.environ.get("RANK", "0") == "0":
        compare(arguments, run)


def train(arguments: argparse.Namespace, run: Path) -> None:
    """Train under the layout, as one of its ranks.

    Raises:
        DataError: the run did not finish.
    """
    size = SIZES[arguments.size]
    training = {"train_iters": STEPS, "save_interval": 100, "eval_iters": 0, "micro_batch_size": 1}
    training["global_batch_size"] = 4
    rank = os.environ.get("RANK", "0")
    folder = run.with_name(f"{run.name}_rank_{rank}")  # each its own: they start at any time
    path = write_recipe(
        arguments.work, folder, size, training=training, parallel=LAYOUTS[arguments.layout]
    )
    from megatron_ext import pretrain

    code = pretrain.main([str(path), f"output={run}"])
    if code:
        raise DataError(f"galen pretrain ended with exit code {code}")


def compare(arguments: argparse.Namespace, run: Path) -> None:
    """Write the losses; compare them with the reference, unless they are it.

    Raises:
        DataError: they differ.
    """
    records = [record for record in read_log(run) if record["kind"] == "train"]
    result: dict[str, Any] = {
        "layout": LAYOUTS[arguments.layout],
        "losses": [record["loss"] for record in records],
        "grad_norms": [record["grad_norm"] for record in records],
    }
    reference = arguments.work / "parallel/reference.json"
    loss_bound, norm_bound = BOUNDS[SIZES[arguments.size].precision]
    losses = ", ".join(f"{loss:.4f}" for loss in result["losses"])
    result["summary"] = f"losses {losses}"
    if arguments.layout == "reference":
        write_text(reference, json.dumps(result) + "\n")
    else:
        expected = json.loads(reference.read_text(encoding="utf-8"))
        result["loss_difference"] = largest_difference(result["losses"], expected["losses"])
        result["norm_difference"] = largest_difference(result["grad_norms"], expected["grad_norms"])
        result["summary"] += (
            f"; from one process {result['loss_difference']:.1e} (bound {loss_bound:g}), gradient"
            f" norms {result['norm_difference']:.1e} (bound {norm_bound:g})"
        )
    print(result["summary"])
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=1) + "\n")
    is_same = (
        result.get("loss_difference", 0) <= loss_bound
        and result.get("norm_difference", 0) <= norm_bound
    )
    if not is_same:
        raise DataError(f"{arguments.layout}: {result['summary']}")


def largest_difference(actual: list[float], expected: list[float]) -> float:
    """Return the largest relative difference of two lists of the same length."""
    pairs = zip(actual, expected, strict=True)
    return max(abs(one - other) / abs(other) for one, other in pairs)


if __name__ == "__main__":
    cli.run(main)
