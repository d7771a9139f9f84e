r"""Find bad nodes before a long run begins.

    RANK=… WORLD_SIZE=… MASTER_ADDR=… MASTER_PORT=… \
        python -m megatron_ext.node_check probe --gpus 8 --disk /tmp=20     # one per node
    python -m megatron_ext.node_check judge n1 n2 n3 < reports

`probe` looks at its node (GPUs by nvidia-smi, free disk) and, when no node has found a fault,
measures all-reduce with each of its neighbours in a ring of all nodes and with all together. It
prints one line of JSON, also when it fails. `judge` reads these lines, says on standard error what
was found, and prints the bad nodes' names (a,b) on standard output: those that found a fault of
their own, those that said nothing, and those whose links to both neighbours are broken or slow.
"""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from galen import cli
from galen.errors import DataError, UsageError

# Fields of nvidia-smi --query-gpu, and the values that a healthy GPU may show ("[N/A]": it does not
# have the feature).
_HEALTH = {
    "ecc.errors.uncorrected.volatile.total": "uncorrected memory errors",
    "remapped_rows.pending": "a row remapping that waits for a reset",
    "remapped_rows.failure": "a row remapping that failed",
    "clocks_event_reasons.hw_slowdown": "a slow-down by the hardware (heat or power)",
}
_HEALTHY = {"0", "no", "not active", "[n/a]", "n/a", "[not supported]"}
_COMMAND_SECONDS = 60
_MEETING_SECONDS = 180  # until all nodes have started Python and found each other
_LINK_SECONDS = 60


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    probe_parser = parts.add_parser("probe", help="look at this node, print a line of JSON")
    probe_parser.add_argument(
        "--gpus",
        type=int,
        default=0,
        metavar="N",
        help="GPUs that the node must have; 0 for none [0]",
    )
    probe_parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="DIR=GB",
        help="writable folder and the GB free there",
    )
    probe_parser.add_argument(
        "--megabytes", type=int, default=64, metavar="N", help="size of the all-reduce [64]"
    )
    judge_parser = parts.add_parser(
        "judge", help="name the bad nodes, from the lines on standard input"
    )
    judge_parser.add_argument(
        "nodes", nargs="+", metavar="NODE", help="names of all nodes that were asked"
    )
    judge_parser.add_argument(
        "--min-bandwidth",
        type=float,
        default=0.0,
        metavar="G",
        help="least GB/s between two nodes; 0 for any [0]",
    )
    arguments = parser.parse_args(argv)
    if arguments.part == "probe":
        print(json.dumps(probe(arguments.gpus, arguments.disk, arguments.megabytes)), flush=True)
        os._exit(0)  # a broken link may keep communication threads waiting
    reports = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    bad = judge(arguments.nodes, reports, arguments.min_bandwidth)
    for name, why in sorted(bad.items()):
        print(f"node {name} is left out: {why}", file=sys.stderr)
    print(summary(arguments.nodes, reports), file=sys.stderr)
    if len(bad) == len(arguments.nodes):
        raise DataError(
            "no node passed the node check: look for one cause (network interface, driver,"
            " GALEN_CHECK_… in slurm/site.sh)"
        )
    print(",".join(sorted(bad)))
    return 0


def probe(gpus: int, disks: Sequence[str], megabytes: int) -> dict[str, Any]:
    """Return this node's report.

    It holds its name, its own faults, and its links' results (GB/s or the error) by neighbour.

    Raises:
        UsageError: an entry of `disks` is not of the form DIR=GB.
    """
    name = os.environ.get("SLURMD_NODENAME") or platform.node()
    faults = [fault for disk in disks if (fault := disk_fault(disk))]
    if gpus:
        faults += gpu_faults(gpus)
    report: dict[str, Any] = {"node": name, "faults": faults, "links": {}, "all": None}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            measure(report, megabytes)
        except Exception as error:  # whatever it is, the report must be made
            report["error"] = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            )
    return report


def disk_fault(disk: str) -> str | None:
    """Return what is wrong with a folder given as DIR=GB, or None.

    Raises:
        UsageError: it is not of that form.
    """
    folder, separator, wanted = disk.rpartition("=")
    if not separator or not wanted.replace(".", "", 1).isdigit():
        raise UsageError(f"--disk {disk}: write DIR=GB, for example /tmp=20")
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"
    return (
        None if free >= float(wanted) else f"{folder} has {free:.1f} GB free, {wanted} are wanted"
    )


def gpu_faults(expected: int) -> list[str]:
    """Return what nvidia-smi shows to be wrong with this node's GPUs."""
    command = ["nvidia-smi", f"--query-gpu=index,{','.join(_HEALTH)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        return ["nvidia-smi is not there"]
    except subprocess.TimeoutExpired:
        return [f"nvidia-smi gave no answer in {_COMMAND_SECONDS} s"]
    if done.returncode:
        return [
            f"nvidia-smi ended with {done.returncode}:"
            f" {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        ]
    rows = [
        [value.strip() for value in line.split(",")]
        for line in done.stdout.splitlines()
        if line.strip()
    ]
    faults = [] if len(rows) == expected else [f"{len(rows)} GPUs, {expected} are wanted"]
    for index, *values in rows:
        shown = zip(_HEALTH.values(), values, strict=False)
        faults += [
            f"GPU {index} has {what}: {value}"
            for what, value in shown
            if value.lower() not in _HEALTHY
        ]
    return faults


def measure(report: dict[str, Any], megabytes: int) -> None:
    """Fill in the links of `report` (collective, one process per node).

    They are the all-reduce bandwidths with both neighbours and with all nodes.

    Nodes first tell each other whether they have faults; with one among them nothing is measured.
    """
    import torch

    from megatron_ext.hardware import platforms

    platform = platforms.detect_platform()
    platform.init_distributed(timeout_minutes=_MEETING_SECONDS / 60)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    told: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(told, (report["node"], bool(report["faults"])))
    if any(faulty for _, faulty in told):
        return
    data = torch.ones(megabytes << 18, device=platform.device)  # fp32: four bytes each
    pairs = sorted(
        {tuple(sorted((n, (n + 1) % ranks))) for n in range(ranks)},
        key=lambda pair: (pair[0] % 2, pair),
    )
    groups = {pair: torch.distributed.new_group(list(pair)) for pair in pairs}
    for pair in pairs:
        if rank in pair:
            other = told[pair[0] if pair[1] == rank else pair[1]][0]
            try:
                report["links"][other] = bandwidth(data, groups[pair], 2)
            except RuntimeError as error:
                report["links"][other] = f"all-reduce failed: {str(error).splitlines()[0][:200]}"
    report["all"] = bandwidth(data, None, ranks)


def bandwidth(data: Any, group: Any, ranks: int, rounds: int = 3) -> float:
    """Return the bus bandwidth of an all-reduce in GB/s.

    It is 2 (n - 1) / n x bytes / seconds, NVIDIA's nccl-tests' definition.

    The slowest of the ranks counts, since each waits for all.
    """
    import torch

    def wait() -> None:
        work = torch.distributed.all_reduce(
            data, op=torch.distributed.ReduceOp.MAX, group=group, async_op=True
        )
        work.wait(datetime.timedelta(seconds=_LINK_SECONDS))
        data[0].item()  # on a GPU, only this waits for the device

    wait()
    start = time.monotonic()
    for _ in range(rounds):
        wait()
    seconds = (time.monotonic() - start) / rounds
    return 2 * (ranks - 1) / ranks * data.numel() * data.element_size() / seconds / 1e9


def judge(
    nodes: Sequence[str], reports: Sequence[dict[str, Any]], minimum: float
) -> dict[str, str]:
    """Return the bad nodes and why.

    Links count only where no node has a fault of its own, since that breaks the others' too.
    """
    told = {report["node"]: report for report in reports}
    bad = {
        name: "; ".join(told[name]["faults"])
        for name in nodes
        if name in told and told[name]["faults"]
    }
    bad |= {name: "it gave no answer to the node check" for name in nodes if name not in told}
    if bad:
        return bad
    for name in nodes:
        links = told[name]["links"]
        broken = {
            other: value
            for other, value in links.items()
            if isinstance(value, str) or value < minimum
        }
        if broken and len(broken) == len(links):
            shown = (
                f"{other}: {value if isinstance(value, str) else f'{value:.2f} GB/s'}"
                for other, value in broken.items()
            )
            bad[name] = f"all its links are broken or below {minimum} GB/s ({'; '.join(shown)})"
        elif "error" in told[name] and not links:
            bad[name] = f"it could not reach the others: {told[name]['error']}"
    return bad


def summary(nodes: Sequence[str], reports: Sequence[dict[str, Any]]) -> str:
    """Return one line about what was measured."""
    rates = [report["all"] for report in reports if report["all"] is not None]
    links = [
        value
        for report in reports
        for value in report["links"].values()
        if not isinstance(value, str)
    ]
    text = f"node check: {len(reports)} of {len(nodes)} nodes answered"
    if links:
        text += f"; all-reduce between two nodes {min(links):.2f} to {max(links):.2f} GB/s"
    return text + (f", over all {min(rates):.2f} GB/s" if rates else "")


if __name__ == "__main__":
    cli.run(main)
