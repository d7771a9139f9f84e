r"""Find bad nodes before a long run begins.

    RANK=… WORLD_SIZE=… MASTER_ADDR=… MASTER_PORT=… \
        galen check-node probe --gpus 8 --disk /tmp=20     # one per node
    galen check-node judge n1 n2 n3 < reports

`probe` checks its node (GPUs by nvidia-smi, free disk) and, if no node has found a fault, measures
all-reduce with each of its neighbors in a ring of all nodes and with all together. It prints one
line of JSON, also when it fails. `judge` reads these lines, logs the findings, and prints the bad
nodes' names (a,b) on standard output: nodes with a fault of their own, nodes without a report, and
nodes whose links to both neighbors are broken or slow.
"""

import dataclasses
import datetime
import json
import logging
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

logger = logging.getLogger(__name__)

# Fields of nvidia-smi --query-gpu, and the values of a healthy GPU ("[N/A]": no such feature).
_HEALTH = {
    "ecc.errors.uncorrected.volatile.total": "uncorrected memory errors",
    "remapped_rows.pending": "a row remapping that waits for a reset",
    "remapped_rows.failure": "a row remapping that failed",
    "clocks_event_reasons.hw_slowdown": "a slow-down by the hardware (heat or power)",
}
_HEALTHY = {"0", "no", "not active", "[n/a]", "n/a", "[not supported]"}
_COMMAND_SECONDS = 60
_RENDEZVOUS_SECONDS = 180  # until all nodes have started Python and found each other
_LINK_SECONDS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """All-reduce between two nodes."""

    bandwidth: float | None = None
    """GB/s; None where it failed."""
    error: str | None = None

    def is_bad(self, min_bandwidth: float) -> bool:
        """Return whether the link is broken, or slower than `min_bandwidth` GB/s."""
        return self.bandwidth is None or self.bandwidth < min_bandwidth

    def __str__(self) -> str:
        return self.error or "" if self.bandwidth is None else f"{self.bandwidth:.2f} GB/s"


@dataclasses.dataclass(kw_only=True)
class Report:
    """Findings of one node."""

    node: str
    faults: list[str]
    """Of the node itself: GPUs, disk."""
    links: dict[str, Link] = dataclasses.field(default_factory=dict)
    """To the neighbors in the ring, by their names."""
    bandwidth: float | None = None
    """GB/s of the all-reduce over all nodes; None where it was not measured."""
    error: str | None = None
    """Why the measurement failed."""

    @classmethod
    def from_json(cls, line: str) -> "Report":
        """Read a line of `probe`."""
        fields = json.loads(line)
        links = {name: Link(**link) for name, link in fields.pop("links").items()}
        return cls(links=links, **fields)

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    probe_parser = commands.add_parser("probe", help="check this node, print a line of JSON")
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
        help="folder that must be writable, and its free GB",
    )
    probe_parser.add_argument(
        "--megabytes", type=int, default=64, metavar="N", help="size of the all-reduce [64]"
    )
    judge_parser = commands.add_parser(
        "judge", help="print the bad nodes, by the lines on standard input"
    )
    judge_parser.add_argument("nodes", nargs="+", metavar="NODE", help="names of all nodes")
    judge_parser.add_argument(
        "--min-bandwidth",
        type=float,
        default=0.0,
        metavar="G",
        help="minimum GB/s between two nodes; 0 for any [0]",
    )
    arguments = parser.parse_args(argv)
    if arguments.command == "probe":
        report = probe(arguments.gpus, arguments.disk, arguments.megabytes)
        print(report.to_json(), flush=True)
        os._exit(0)  # a broken link may keep communication threads waiting
    reports = [Report.from_json(line) for line in sys.stdin if line.startswith("{")]
    bad = judge(arguments.nodes, reports, arguments.min_bandwidth)
    for name, reason in sorted(bad.items()):
        logger.warning(f"excluding node {name}: {reason}")
    logger.info(summary(arguments.nodes, reports))
    if len(bad) == len(arguments.nodes):
        raise DataError(
            "no node passed the node check: look for one cause (network interface, driver,"
            " GALEN_CHECK_… in slurm/site.sh)"
        )
    print(",".join(sorted(bad)))
    return 0


def probe(gpus: int, disks: Sequence[str], megabytes: int) -> Report:
    """Check this node and its links.

    Args:
        gpus: that the node must have; 0 for none.
        disks: folders with the GB that must be free, as DIR=GB.
        megabytes: size of the all-reduce.

    Raises:
        UsageError: an entry of `disks` is not DIR=GB.
    """
    name = os.environ.get("SLURMD_NODENAME") or platform.node()
    disk_faults = [disk_fault(disk) for disk in disks]
    faults = [fault for fault in disk_faults if fault]
    if gpus:
        faults += gpu_faults(gpus)
    report = Report(node=name, faults=faults)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            measure(report, megabytes)
        except Exception as error:  # any error: the report must be printed
            report.error = f"{type(error).__name__}: {_first_line(error)}"
    return report


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def disk_fault(disk: str) -> str | None:
    """Return the fault of a folder, described as DIR=GB, or None.

    Raises:
        UsageError: the description is not DIR=GB.
    """
    folder, separator, required = disk.rpartition("=")
    if not separator or not required.replace(".", "", 1).isdigit():
        raise UsageError(f"--disk {disk}: write DIR=GB, for example /tmp=20")
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"
    if free < float(required):
        return f"{folder} has {free:.1f} GB free, {required} are required"
    return None


def gpu_faults(expected: int) -> list[str]:
    """Return the faults that nvidia-smi shows of this node's GPUs."""
    command = ["nvidia-smi", f"--query-gpu=index,{','.join(_HEALTH)}", "--format=csv,noheader"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        return ["nvidia-smi is missing"]
    except subprocess.TimeoutExpired:
        return [f"nvidia-smi did not answer within {_COMMAND_SECONDS} s"]
    if result.returncode:
        output = (result.stderr or result.stdout).strip()
        return [f"nvidia-smi ended with {result.returncode}: {output.splitlines()[-1:]}"]
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    faults = []
    if len(lines) != expected:
        faults.append(f"{len(lines)} GPUs, {expected} are required")
    for line in lines:
        index, *values = (value.strip() for value in line.split(","))
        for fault, value in zip(_HEALTH.values(), values, strict=False):
            if value.lower() not in _HEALTHY:
                faults.append(f"GPU {index} has {fault}: {value}")
    return faults


def measure(report: Report, megabytes: int) -> None:
    """Measure the links of this node and add them to `report` (collective, one process per node).

    If any node has a fault, nothing is measured.
    """
    import torch

    from megatron_ext.hardware import platforms

    platform = platforms.detect_platform()
    platform.init_distributed(timeout_minutes=_RENDEZVOUS_SECONDS / 60)
    rank = torch.distributed.get_rank()
    world_size = torch.distributed.get_world_size()
    nodes: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(nodes, (report.node, bool(report.faults)))
    if any(faulty for _, faulty in nodes):
        return
    data = torch.ones(megabytes << 18, device=platform.device)  # fp32: four bytes each
    pairs = _ring_pairs(world_size)
    groups = {pair: torch.distributed.new_group(list(pair)) for pair in pairs}
    for pair in pairs:
        if rank not in pair:
            continue
        neighbor, _ = nodes[pair[0] if pair[1] == rank else pair[1]]
        try:
            report.links[neighbor] = Link(bandwidth=bandwidth(data, groups[pair], 2))
        except RuntimeError as error:
            report.links[neighbor] = Link(error=f"all-reduce failed: {_first_line(error)}")
    report.bandwidth = bandwidth(data, None, world_size)


def _ring_pairs(world_size: int) -> list[tuple[int, int]]:
    """Return the pairs of neighboring ranks, those first that can be measured at the same time."""
    pairs = set()
    for rank in range(world_size):
        neighbor = (rank + 1) % world_size
        pairs.add((min(rank, neighbor), max(rank, neighbor)))
    return sorted(pairs, key=lambda pair: (pair[0] % 2, pair))


def bandwidth(data: Any, group: Any, ranks: int, rounds: int = 3) -> float:
    """Return the bus bandwidth of an all-reduce in GB/s, that of the slowest rank.

    It is 2 (n - 1) / n x bytes / seconds, NVIDIA's nccl-tests' definition.
    """
    import torch

    def all_reduce() -> None:
        work = torch.distributed.all_reduce(
            data, op=torch.distributed.ReduceOp.MAX, group=group, async_op=True
        )
        work.wait(datetime.timedelta(seconds=_LINK_SECONDS))
        data[0].item()  # on a GPU, only this waits for the device

    all_reduce()
    start = time.monotonic()
    for _ in range(rounds):
        all_reduce()
    seconds = (time.monotonic() - start) / rounds
    return 2 * (ranks - 1) / ranks * data.numel() * data.element_size() / seconds / 1e9


def judge(nodes: Sequence[str], reports: Sequence[Report], min_bandwidth: float) -> dict[str, str]:
    """Return the bad nodes and why they are bad.

    Links count only if no node has a fault of its own, since that breaks the others' too.

    Args:
        nodes: names of all nodes.
        reports: of those that answered.
        min_bandwidth: GB/s between two nodes.
    """
    by_node = {report.node: report for report in reports}
    bad = {}
    for name in nodes:
        if name not in by_node:
            bad[name] = "no report"
        elif by_node[name].faults:
            bad[name] = "; ".join(by_node[name].faults)
    if bad:
        return bad
    for name in nodes:
        report = by_node[name]
        if not report.links:
            if report.error is not None:
                bad[name] = f"cannot reach the others: {report.error}"
        elif all(link.is_bad(min_bandwidth) for link in report.links.values()):
            links = "; ".join(f"{neighbor}: {link}" for neighbor, link in report.links.items())
            bad[name] = f"all its links are broken or below {min_bandwidth} GB/s ({links})"
    return bad


def summary(nodes: Sequence[str], reports: Sequence[Report]) -> str:
    """Return one line about the measurements."""
    text = f"node check: {len(reports)} of {len(nodes)} nodes answered"
    rates = []
    for report in reports:
        bandwidths = [link.bandwidth for link in report.links.values()]
        rates += [bandwidth for bandwidth in bandwidths if bandwidth is not None]
    if rates:
        text += f"; all-reduce between two nodes {min(rates):.2f} to {max(rates):.2f} GB/s"
    rates = [report.bandwidth for report in reports if report.bandwidth is not None]
    if rates:
        text += f", over all {min(rates):.2f} GB/s"
    return text


if __name__ == "__main__":
    cli.run(main)
