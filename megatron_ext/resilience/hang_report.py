"""Evidence of a hang in RUN/hangs/TIME: each rank's stacks and PyTorch's flight recorder.

`dump` writes the files of one rank, `find_waits` reads those of all: which rank has not called a
collective that others wait in.
"""

import contextlib
import dataclasses
import faulthandler
import json
import logging
import re
from pathlib import Path
from typing import Any

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError

FOLDER = "hangs"
_MAX_ENTRIES = 200
"""Last calls of each process group in a rank's file."""
_PEER = re.compile(r"(\d+)(?:<-|->)(\d+)$")
"""Of a point-to-point call of NCCL: this rank within its group, and the other one."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """Ranks that wait in a call for others that have not made it."""

    call: str
    """Name, number and process group."""
    ranks: tuple[int, ...]
    missing: tuple[int, ...]

    def __str__(self) -> str:
        wait = "waits" if len(self.ranks) == 1 else "wait"
        have = "has" if len(self.missing) == 1 else "have"
        return (
            f"{_names(self.ranks)} {wait} in {self.call}, which {_names(self.missing)} {have} not"
            " called"
        )


def dump(folder: Path, rank: int) -> None:
    """Write the stacks of this process and its last collectives to a folder.

    What cannot be written is logged: a hang must be reported in any case.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"rank_{rank:05d}.stacks.txt").open("w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        recorder = _recorder()
        entries = _entries(recorder.json)
        content = {"rank": rank, "groups": _groups(entries)}
        write_text(
            folder / f"rank_{rank:05d}.collectives.json", json.dumps(content, indent=1) + "\n"
        )
        # for `torchfrtrace`, the reader of PyTorch
        (folder / f"flight_recorder_rank_{rank}").write_bytes(recorder.pickle)
    # a full disk, another version of PyTorch
    except Exception as error:
        logger.warning(f"the state of this rank cannot be written to {folder}: {error}")


@dataclasses.dataclass(frozen=True)
class _Recorder:
    json: str
    pickle: bytes


def _recorder() -> _Recorder:
    """Return the records of the backend in use: NCCL has its own recorder."""
    import torch
    from torch._C import _distributed_c10d as c10d

    name = "_dump_fr_trace"
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl":
        name = "_dump_nccl_trace"
    as_json = getattr(c10d, f"{name}_json")(True, False)
    if isinstance(as_json, bytes):
        as_json = as_json.decode()
    return _Recorder(as_json, getattr(c10d, name)(True, True, False))


def _entries(records: str) -> list[dict[str, Any]]:
    entries = json.loads(records).get("entries", [])
    assert isinstance(entries, list)
    return entries


def _groups(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last calls of each process group."""
    members = _members()
    groups: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name, description = entry["process_group"]
        group = groups.setdefault(
            name, {"name": name, "description": description, "ranks": members.get(name, [])}
        )
        call = {
            "call": entry["profiling_name"],
            "number": entry["p2p_seq_id" if entry["is_p2p"] else "collective_seq_id"],
            "is_p2p": entry["is_p2p"],
            "pending": not entry["retired"] and entry["state"] != "completed",
            "sizes": entry["input_sizes"],
            "time": entry["time_created_ns"] / 1e9,
        }
        group.setdefault("calls", []).append(call)
    return [group | {"calls": group["calls"][-_MAX_ENTRIES:]} for group in groups.values()]


def _members() -> dict[str, list[int]]:
    """Return the global ranks of each process group of this process, in the group's order."""
    from torch.distributed.distributed_c10d import _world

    # one that this process is not a member of has no name
    return {
        str(_world.pg_names[group]): list(ranks)
        for group, ranks in _world.pg_group_ranks.items()
        if group in _world.pg_names
    }


def read(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the process groups with their calls of each rank that has written them."""
    reports = {}
    for path in folder.glob("rank_*.collectives.json"):
        with contextlib.suppress(DataError, KeyError):
            report = json_file.read_object(path)
            reports[int(report["rank"])] = report["groups"]
    return reports


def find_waits(reports: dict[int, list[dict[str, Any]]], silent: set[int]) -> list[Wait]:
    """Return which calls ranks wait in, and for whom.

    Args:
        reports: process groups with their calls, of each rank.
        silent: ranks without a report that no longer answer.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for rank, report in reports.items():
        for group in report:
            groups.setdefault(group["name"], {})[rank] = group
    waits = []
    for by_rank in groups.values():
        wait = _missing_collective(by_rank, silent)
        if wait is not None:
            waits.append(wait)
        for rank, group in by_rank.items():
            waits += _pending_peers(rank, group)
    return waits


def _missing_collective(by_rank: dict[int, dict[str, Any]], silent: set[int]) -> Wait | None:
    """Return the first collective of a group that some of its ranks have not called."""
    collectives = {
        rank: {call["number"]: call for call in group["calls"] if not call["is_p2p"]}
        for rank, group in by_rank.items()
    }
    last = {rank: max(calls, default=0) for rank, calls in collectives.items()}
    group = next(iter(by_rank.values()))
    missing = tuple(rank for rank in sorted(last) if last[rank] < max(last.values()))
    if missing:
        number = min(last[rank] for rank in missing) + 1
    else:
        missing = tuple(sorted(silent.intersection(group["ranks"])))
        pending = [
            call["number"]
            for calls in collectives.values()
            for call in calls.values()
            if call["pending"]
        ]
        if not missing or not pending:
            return None
        number = min(pending)
    ranks = tuple(rank for rank in sorted(last) if last[rank] >= number)
    calls = [collectives[rank][number] for rank in ranks if number in collectives[rank]]
    name = calls[0]["call"] if calls else "a collective"
    return Wait(call=_describe(name, number, group), ranks=ranks, missing=missing)


def _pending_peers(rank: int, group: dict[str, Any]) -> list[Wait]:
    """Return the point-to-point calls of a rank that are not completed, where they name a peer."""
    waits = []
    for call in group["calls"]:
        match = _PEER.search(call["call"])
        if not call["is_p2p"] or not call["pending"] or match is None or not group["ranks"]:
            continue
        peer = group["ranks"][int(match[2])]
        name = call["call"][: match.start()].strip()
        described = _describe(f"{name} with rank {peer}", call["number"], group)
        waits.append(Wait(call=described, ranks=(rank,), missing=(peer,)))
    return waits[:1]


def _describe(name: str, number: int, group: dict[str, Any]) -> str:
    ranks = f", {_names(group['ranks'])}" if group["ranks"] else ""
    return f"{name} (call {number} of process group {group['description']}{ranks})"


def root_causes(waits: list[Wait]) -> list[int]:
    """Return the ranks that others wait for, and that wait for nobody."""
    waiting = {rank for wait in waits for rank in wait.ranks}
    missing = {rank for wait in waits for rank in wait.missing}
    return sorted(missing - waiting)


def _names(ranks: tuple[int, ...] | list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}{more}"
