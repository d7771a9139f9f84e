"""Steps of the end-to-end check that no command of Galen does: its inputs, a kill and a resume.

    python benchmarks/gpu_check/end_to_end.py inputs --work DIR
    python benchmarks/gpu_check/end_to_end.py kill --work DIR      # after an import to DIR/megatron
    python benchmarks/gpu_check/end_to_end.py resume --work DIR

`kill` starts a run with packed documents, asynchronous checkpoints and, with --fp8, FP8 weights. It
kills the run with SIGKILL some steps after a checkpoint. `resume` starts it again, compares the
losses of the steps that are done twice, and stops it with the trigger file.
"""

import argparse
import json
import logging
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from galen import cli  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from galen.errors import DataError  # noqa: E402
from galen.stop_signals import EXIT_STOPPED  # noqa: E402
from gpu_check.processes import CheckProcesses  # noqa: E402
from gpu_check.small_run import (  # noqa: E402
    SIZES,
    read_log,
    write_documents,
    write_model,
    write_recipe,
)

KILLED = "killed_run"
"""Copy of the run folder as the kill left it."""
STEPS_TO_REPEAT = 3
BOUND = 0.01
"""Largest relative difference of a repeated step's loss on GPUs, whose sums have no fixed order."""
_POLL_SECONDS = 0.02

logger = logging.getLogger("galen.gpu_check.end_to_end")


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("step", choices=("inputs", "kill", "resume"))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", choices=SIZES, default="small", help="tiny is for CPUs [small]")
    parser.add_argument("--fp8", metavar="RECIPE", help="FP8 recipe; without it bf16 [none]")
    parser.add_argument("--output", type=Path, help="also write the result to this JSON file")
    arguments = parser.parse_args(argv)
    if arguments.step == "inputs":
        make_inputs(arguments)
        return
    result = kill(arguments) if arguments.step == "kill" else resume(arguments)
    print(result["summary"])
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=1) + "\n")


def make_inputs(arguments: argparse.Namespace) -> None:
    """Write the model and the documents; remove what later steps made of earlier ones."""
    from megatron_ext import bootstrap

    bootstrap()
    for name in ("model", "tokens", "megatron", "run", "exported"):
        shutil.rmtree(arguments.work / name, ignore_errors=True)
    size = SIZES[arguments.size]
    model = arguments.work / "model"
    write_model(model, size)
    prefix = arguments.work / "tokens/documents_text_document"
    write_documents(prefix, size, model / "tokenizer.json")


def kill(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train until some steps after a checkpoint, and kill the run."""
    output = arguments.work / "run"
    for folder in (output, arguments.work / "exported"):
        shutil.rmtree(folder, ignore_errors=True)
    started = _start(arguments, output)

    def has_steps_after_checkpoint() -> bool:
        saved = _newest_checkpoint(output)
        return saved > 0 and _last_step(read_log(output)) >= saved + STEPS_TO_REPEAT

    _await(started, has_steps_after_checkpoint)
    started.signal(signal.SIGSTOP)
    while not has_steps_after_checkpoint():  # another checkpoint was published meanwhile
        started.signal(signal.SIGCONT)
        _await(started, has_steps_after_checkpoint)
        started.signal(signal.SIGSTOP)
    if not started.kill():
        raise DataError("the run cannot be killed")
    records = read_log(output)
    backup = arguments.work / KILLED
    shutil.rmtree(backup, ignore_errors=True)
    shutil.copytree(output, backup, symlinks=True)
    losses = {record["step"]: record["loss"] for record in records if record["kind"] == "train"}
    stalls = [record["checkpoint_stall"] for record in records if record["kind"] == "checkpoint"]
    result = {
        "checkpoint": _newest_checkpoint(output),
        "killed_after": _last_step(records),
        "losses": losses,
        "checkpoint_stalls": stalls,
        "seconds": round(started.seconds, 1),
    }
    result["summary"] = (
        f"killed after step {result['killed_after']}, {started.seconds:.0f} s; loss"
        f" {min(losses.items())[1]:.4f} to {max(losses.items())[1]:.4f}; checkpoint of step"
        f" {result['checkpoint']}, training waited {stalls[0]:.2f} s"
    )
    write_text(arguments.work / "killed.json", json.dumps(result) + "\n")
    return result


def resume(arguments: argparse.Namespace) -> dict[str, Any]:
    """Resume the run, compare the steps that are done twice, and stop it with a checkpoint.

    Raises:
        DataError: it does not resume from the checkpoint, or a loss differs.
    """
    output = arguments.work / "run"
    text = (arguments.work / "killed.json").read_text(encoding="utf-8")
    killed = json.loads(text)
    # an interrupted check may have continued the run already
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(arguments.work / KILLED, output, symlinks=True)
    started = _start(arguments, output)
    last = killed["killed_after"]
    began = time.time()

    def is_past_the_kill() -> bool:
        is_new = (output / "log.jsonl").stat().st_mtime > began
        return is_new and _last_step(read_log(output)) > last

    _await(started, is_past_the_kill)
    (output / "stop").touch()
    _await(started, lambda: False, codes=(EXIT_STOPPED,))
    records = read_log(output)
    differences = []
    for record in records:
        expected = killed["losses"].get(str(record["step"]))
        if record["kind"] == "train" and killed["checkpoint"] < record["step"] <= last:
            differences.append(abs(record["loss"] - expected) / abs(expected))
    if not differences:
        raise DataError(f"no step was done twice after the checkpoint {killed['checkpoint']}")
    largest = max(differences)
    same = "bit-identical losses" if largest == 0 else f"losses differ by up to {largest:.1e}"
    result = {
        "repeated_steps": len(differences),
        "largest_difference": largest,
        "last_step": _last_step(records),
        "padding_fraction": records[-1].get("padding_fraction"),
        "seconds": round(started.seconds, 1),
        "summary": (
            f"resumed after step {killed['checkpoint']}; {len(differences)} steps repeated: {same}"
        ),
    }
    bound = 0.0 if SIZES[arguments.size].precision == "fp32" else BOUND
    if not (math.isfinite(largest) and largest <= bound):
        raise DataError(f"{result['summary']} (bound {bound:g})")
    return result


def _start(arguments: argparse.Namespace, output: Path) -> CheckProcesses:
    size = SIZES[arguments.size]
    training: dict[str, Any] = {"async_save": True}
    if arguments.fp8:
        training |= {"fp8_format": "hybrid", "fp8_recipe": arguments.fp8, "fp8_param_gather": True}
    recipe = write_recipe(arguments.work, output, size, training=training)
    return CheckProcesses(["-m", "megatron_ext.pretrain", str(recipe)], 1, None, {})


def _await(
    started: CheckProcesses, condition: Callable[[], bool], codes: tuple[int, ...] = ()
) -> None:
    """Wait until a condition is true, or the run has ended with one of the exit codes.

    Raises:
        DataError: the run ended otherwise.
    """
    while not condition():
        code = started.poll()
        if code in codes:
            return
        if code is not None:
            raise DataError(f"galen pretrain ended with exit code {code}")
        time.sleep(_POLL_SECONDS)


def _newest_checkpoint(output: Path) -> int:
    """Return the step of a run's newest complete checkpoint, 0 if there is none."""
    from megatron_ext.checkpoint import checkpoint_folder

    checkpoints = output / "checkpoints"
    try:
        return int(checkpoint_folder.newest(checkpoints).name.removeprefix("iter_"))
    except DataError:
        return 0


def _steps(records: list[dict[str, Any]], kind: str) -> list[int]:
    return [record["step"] for record in records if record["kind"] == kind]


def _last_step(records: list[dict[str, Any]]) -> int:
    return max(_steps(records, "train"), default=0)


if __name__ == "__main__":
    cli.run(main)
