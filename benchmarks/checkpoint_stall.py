"""Measure how long a checkpoint stops training, by phase, and extrapolate to 8B and 70B.

    python benchmarks/checkpoint_stall.py --folder /scratch/stall --size 135m

A random model is trained on two data-parallel processes and saved after each step, in both formats
of the optimizer's state, with and without `training.async_save`; the figures come from the run log.
Then `galen reshard` converts a checkpoint, and its peak memory is read. Needs 15 GB of disk and
memory for 135m.

The first save of a run is left out: it also plans the files. On a CPU nothing is copied to host
memory, so that the estimates assume --copy-rate. Before the runs, the rates of single operations
are measured: copying and hashing memory, and forking a process that holds it.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train_cpu

from galen import cli

ROOT = Path(__file__).parents[1]
PROCESSES = 2
STEPS = 5
MODELS = {"8B on 8 GPUs": (8.03e9, 8), "70B on 64 GPUs": (70.6e9, 64)}
BYTES_PER_WEIGHT = 14  # bf16, and three fp32 copies in the optimizer


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark and print tables."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="temporary; removed at the end")
    parser.add_argument("--size", choices=train_cpu.SIZES, default="135m", help="[135m]")
    parser.add_argument(
        "--copy-rate",
        type=float,
        default=20.0,
        metavar="GB_PER_S",
        help="assumed copy from each GPU to host memory, all of a node at once [20]",
    )
    arguments = parser.parse_args(argv)
    folder = arguments.folder
    try:
        folder.mkdir(parents=True)
        rates = measure_rates()
        print(", ".join(f"{name} {rate:.2f} GB/s" for name, rate in rates.items()) + "\n")
        train_cpu.prepare(folder, _sizes(arguments.size))
        runs = {
            (optimizer_format, asynchronous): measure(folder, optimizer_format, asynchronous)
            for optimizer_format in ("always", "never")
            for asynchronous in (False, True)
        }
        print_runs(runs)
        size, peak, seconds = reshard(folder)
        print(
            f"\nreshard: {size / 1e9:.2f} GB in {seconds:.1f} s, peak memory {peak / 2**30:.2f} GiB"
        )
        print_estimates(runs["never", True], rates["fork"], arguments.copy_rate)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(size: str) -> argparse.Namespace:
    return argparse.Namespace(size=size, sequence=64, steps=STEPS, micro_batch=1, accumulation=2)


def measure_rates() -> dict[str, float]:
    """Return the GB/s of copying, hashing and forking a process with a gigabyte of memory."""
    import torch

    block = torch.ones(2**28)  # 1 GiB
    target = torch.ones_like(block)
    gigabytes = block.nbytes / 1e9
    return {
        "copy": gigabytes / _fastest(lambda: target.copy_(block)),
        "hash": gigabytes / _fastest(lambda: hashlib.sha256(block.numpy().data)),
        "fork": 2 * gigabytes / min(_fork_seconds() for _ in range(5)),
    }


def _fork_seconds() -> float:
    """Return the seconds in which a process is forked, without those in which it ends."""
    start = time.monotonic()
    child = os.fork()
    if not child:
        os._exit(0)
    seconds = time.monotonic() - start
    os.waitpid(child, 0)
    return seconds


def _fastest(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of five repetitions."""
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        work()
        seconds.append(time.monotonic() - start)
    return min(seconds)


def measure(folder: Path, optimizer_format: str, asynchronous: bool) -> dict[str, Any]:
    """Train, and return the median seconds of each phase and the bytes of a checkpoint."""
    output = folder / f"run_{optimizer_format}_{asynchronous}"
    recipe = {
        "output": str(output),
        "model": {"checkpoint": str(folder / "megatron"), "verify_checksums": False},
        "data": {"train": [str(folder / "tokens")], "seq_length": 64, "num_workers": 0},
        "training": {
            "train_iters": STEPS,
            "micro_batch_size": 1,
            "global_batch_size": PROCESSES,
            "precision": "bf16",
            "eval_iters": 0,
            "save_interval": 1,
            "keep_last": 1,
            "async_save": asynchronous,
            "dist_ckpt_optim_fully_reshardable": optimizer_format,
        },
        "optimizer": {"lr": 1e-4},
        "resilience": {"check_memory": False},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    train_cpu.run(
        "-m",
        "megatron_ext.pretrain",
        "--nproc-per-node",
        PROCESSES,
        folder / "recipe.yaml",
    )
    lines = (output / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if "checkpoint_stall" in record]
    saves: dict[int, dict[str, float]] = {}
    for record in records:
        phases = saves.setdefault(record["step"], {})
        for name, seconds in record["phases"].items():
            phases[name] = phases.get(name, 0.0) + seconds
    later = [phases for step, phases in saves.items() if step > 1]
    (iteration,) = (output / "checkpoints").glob("iter_*")
    size = sum(path.stat().st_size for path in iteration.iterdir())
    if (optimizer_format, asynchronous) != ("never", True):
        shutil.rmtree(output)  # the last is converted
    medians = {
        name: statistics.median(phases.get(name, 0.0) for phases in later) for name in later[0]
    }
    return {"bytes": size, "phases": medians}


def print_runs(runs: dict[tuple[str, bool], dict[str, Any]]) -> None:
    """Print the phases of each kind of run."""
    names = ("gather", "plan", "copy", "fork", "wait", "publish")
    print(f"| optimizer state | async_save | GB | {' | '.join(names)} |")
    print("|---" * (3 + len(names)) + "|")
    for (optimizer_format, asynchronous), run in runs.items():
        kind = "fully_reshardable" if optimizer_format == "always" else "dp_reshardable"
        seconds = " | ".join(f"{run['phases'].get(name, 0.0):.3f}" for name in names)
        print(f"| {kind} | {str(asynchronous).lower()} | {run['bytes'] / 1e9:.2f} | {seconds} |")


def reshard(folder: Path) -> tuple[int, int, float]:
    """Convert the last run's checkpoint; return its bytes, the peak memory and the seconds."""
    checkpoint = folder / "run_never_True" / "checkpoints"
    (iteration,) = checkpoint.glob("iter_*")
    size = sum(path.stat().st_size for path in iteration.iterdir())
    script = str(ROOT / "checkpoints_convert" / "reshard.py")
    options = ["--megatron", str(checkpoint), "--output", str(folder / "resharded")]
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script, *options], env=environment, stderr=subprocess.DEVNULL
    )
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(1024 * int(line.split()[1]) for line in lines)])
        time.sleep(0.02)
    process.wait()
    return size, peak, time.monotonic() - start


def print_estimates(run: dict[str, Any], fork_rate: float, copy_rate: float) -> None:
    """Print the stall of larger models from the measured phases and rates (GB/s).

    The copy and the fork grow with the bytes that a process saves; `gather` (without gathering),
    `plan` and `publish` are taken as measured.
    """
    print("\n| model | GB per process | gather, plan, publish | copy | fork | stall |")
    print("|---" * 6 + "|")
    for name, (weights, gpus) in MODELS.items():
        own = BYTES_PER_WEIGHT * weights / gpus
        constant = sum(run["phases"].get(phase, 0.0) for phase in ("gather", "plan", "publish"))
        copy = own / (copy_rate * 1e9)
        fork = run["phases"]["fork"] + own / (fork_rate * 1e9)
        print(
            f"| {name} | {own / 1e9:.1f} | {constant:.2f} s | {copy:.2f} s | {fork:.2f} s |"
            f" {constant + copy + fork:.1f} s |"
        )


if __name__ == "__main__":
    cli.run(main)
