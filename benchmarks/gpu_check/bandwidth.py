"""Bus bandwidth of all-reduce and all-gather over the GPUs of this machine, as nccl-tests count it.

`make gpu-check` starts one process for each rank, with torchrun's variables:

    torchrun --nproc-per-node 8 benchmarks/gpu_check/bandwidth.py
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from galen import cli  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from megatron_ext import bootstrap  # noqa: E402

WARM_UP = 3
REPEATS = 10


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--mebibytes", type=int, default=1024, metavar="N", help="size of a buffer [1024]"
    )
    parser.add_argument("--output", type=Path, help="also write the result to this JSON file")
    arguments = parser.parse_args(argv)
    bootstrap()
    from megatron_ext.hardware import platforms

    platform = platforms.current_platform()
    platform.init_distributed(2)
    try:
        measure(arguments, platform)
    finally:
        platform.leave_distributed()


def measure(arguments: argparse.Namespace, platform: Any) -> None:
    """Measure both collectives, and let rank 0 report them."""
    import torch

    ranks = torch.distributed.get_world_size()
    numbers = arguments.mebibytes * 2**20 // 2 // ranks * ranks
    buffer = torch.ones(numbers, dtype=torch.bfloat16, device=platform.device)
    shard = buffer[: numbers // ranks].clone()
    # each rank sends 2 (n-1)/n of the buffer to reduce it, and (n-1)/n to gather it
    collectives: dict[str, tuple[Callable[[], Any], float]] = {
        "all_reduce": (lambda: torch.distributed.all_reduce(buffer), 2 * (ranks - 1) / ranks),
        "all_gather": (
            lambda: torch.distributed.all_gather_into_tensor(buffer, shard),
            (ranks - 1) / ranks,
        ),
    }
    result: dict[str, Any] = {"ranks": ranks, "bytes": 2 * numbers, "backend": platform.backend}
    for name, (collective, factor) in collectives.items():
        seconds = _median_seconds(collective)
        result[f"{name}_busbw_gb_per_second"] = 2 * numbers * factor / seconds / 1e9
    result["summary"] = (
        f"busbw over {ranks} ranks ({platform.backend}): all-reduce"
        f" {result['all_reduce_busbw_gb_per_second']:.1f} GB/s, all-gather"
        f" {result['all_gather_busbw_gb_per_second']:.1f} GB/s"
    )
    if platform.backend == "nccl":
        result["summary"] += " (NVLink 4: 450 GB/s peak)"
    if torch.distributed.get_rank() == 0:
        print(result["summary"])
        if arguments.output:
            write_text(arguments.output, json.dumps(result, indent=1) + "\n")


def _median_seconds(collective: Callable[[], Any]) -> float:
    import torch

    seconds = []
    for _ in range(WARM_UP + REPEATS):
        torch.cuda.synchronize()
        torch.distributed.barrier()
        start = time.perf_counter()
        collective()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


if __name__ == "__main__":
    cli.run(main)
