"""The table and the JSON of all results, beside what to compare them with."""

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from galen.atomic import write_text
from gpu_check.checks import STAGES

if TYPE_CHECKING:
    from gpu_check.session import Session

_RATE = "tokens_per_second_per_gpu"
_ADVICE = (
    "To compare or send: OUTPUT/report.json holds figures, commands, versions and hardware"
    " (docs/benchmarks.md, GPU check)."
)


def of_stage(records: Mapping[str, dict[str, Any]], stage: str) -> dict[str, dict[str, Any]]:
    """Return the records of a stage by the name of the check."""
    prefix = f"{stage}/"
    return {
        id.removeprefix(prefix): record for id, record in records.items() if id.startswith(prefix)
    }


def count(records: Mapping[str, dict[str, Any]], *statuses: str) -> int:
    """Return the number of records with one of these statuses."""
    return sum(record["status"] in statuses for record in records.values())


def write(session: "Session", stages: list[str]) -> str:
    """Write report.json and report.txt; return the text."""
    text = _table(session, stages)
    content = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minutes": session.minutes,
        "environment": session.facts,
        "stages": {stage: of_stage(session.records, stage) for stage in STAGES},
    }
    write_text(session.output / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(session.output / "report.txt", text + "\n")
    return text


def _table(session: "Session", stages: list[str]) -> str:
    lines = []
    records = session.records
    width = max([len("check"), *map(len, records)])
    lines.append(f"{'check':{width}}  {'status':11}  {'s':>5}  result")
    for stage in STAGES:
        for name, record in of_stage(records, stage).items():
            seconds = f"{record['seconds']:.0f}" if "seconds" in record else ""
            shown = [f"{stage}/{name}".ljust(width), record["status"].ljust(11), f"{seconds:>5}"]
            first, *others = _result_lines(record)
            lines.append("  ".join([*shown, first]).rstrip())
            lines += [" " * (width + 22) + other for other in others]
        if stage not in stages and not of_stage(records, stage):
            lines.append(f"{stage.ljust(width)}  not run      (--stages)")
    statuses = ("passed", "failed", "timeout", "unsupported", "skipped", "interrupted")
    counts = [f"{count(records, status)} {status}" for status in statuses]
    used = [text for text in counts if not text.startswith("0 ")]
    lines += ["", ", ".join(used or ["nothing ran"]), f"Results: {session.output}", _ADVICE]
    return "\n".join(lines)


def _result_lines(record: dict[str, Any]) -> list[str]:
    """Return what a check found, then what to compare it with."""
    result = record["result"]
    if record["status"] != "passed":
        reason = [line[:300] for line in record.get("reason", "").splitlines()] or [""]
        return reason + (_throughput_lines(result) if _RATE in result else [])
    if _RATE in result:
        return _throughput_lines(result)
    return [str(result.get("summary", ""))]


def _throughput_lines(result: dict[str, Any]) -> list[str]:
    mfu = "" if result["mfu"] is None else f", MFU {result['mfu']:.1%}"
    rate = result[_RATE]
    lines = [
        f"{rate:,.0f} tokens/s/GPU, {result['model_tflops_per_gpu']:,.1f} TFLOP/s/GPU{mfu},"
        f" {result['peak_memory_gib']:.1f} GiB,"
        f" {result['model']['num_layers']} layers of {result['all_layers']}"
    ]
    if planned := result.get("planned"):
        difference = rate / planned[_RATE] - 1
        lines.append(
            f"planned: {planned[_RATE]:,.0f} tokens/s/GPU"
            f" (measured {difference:+.1%}), {planned['memory_gib']:.1f} GiB"
        )
    lines += [f"published: {line}" for line in result.get("published", [])]
    for operation in result.get("slowest", [])[:10]:
        lines.append(
            f"{operation['fraction']:6.1%} {operation['milliseconds']:9.1f} ms"
            f" {operation['calls']:6} x {operation['operation'][:90]}"
        )
    return lines
