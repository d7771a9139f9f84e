"""Compare the figures of two GPU checks, such as two machines, versions or commits.

    python benchmarks/gpu_check/compare.py benchmarks/results/h100 benchmarks/results/h200

Each is a folder that `make gpu-check GPU_ARGS="--output DIR"` wrote, or its report.json.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from galen import cli, json_file  # noqa: E402
from galen.errors import DataError  # noqa: E402

FIGURES = {
    "tokens_per_second_per_gpu": ("tokens/s/GPU", ",.0f"),
    "mfu": ("MFU", ".3f"),
    "peak_memory_gib": ("GiB", ".1f"),
    "mean": ("mean loss", ".4f"),
    "all_reduce_busbw_gb_per_second": ("all-reduce GB/s", ".1f"),
    "all_gather_busbw_gb_per_second": ("all-gather GB/s", ".1f"),
    "largest_difference": ("loss difference after resume", ".1e"),
}
"""Names and formats of figures by their keys."""


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("first", type=Path, metavar="DIR")
    parser.add_argument("second", type=Path, metavar="DIR")
    arguments = parser.parse_args(argv)
    reports = [read(path) for path in (arguments.first, arguments.second)]
    for number, report in enumerate(reports, start=1):
        print(f"{number}: {report['environment'].get('summary', 'no environment')}")
    print()
    for line in table(*map(records, reports)):
        print(line)


def read(path: Path) -> dict[str, Any]:
    """Return a report.

    Raises:
        DataError: it is missing, or something else.
    """
    report = json_file.read_object(path / "report.json" if path.is_dir() else path)
    if not {"environment", "stages"} <= report.keys():
        raise DataError(f"{path} is not a report of the GPU check")
    return report


def records(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a report's records by the id of the check."""
    found = {}
    for stage, checks in report["stages"].items():
        for name, record in checks.items():
            found[f"{stage}/{name}"] = record
    return found


def table(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each status that differs and for each figure that both have."""
    lines = []
    ids = [*first, *(id for id in second if id not in first)]
    width = max(map(len, ids), default=0)
    for id in ids:
        one = first.get(id, {"status": "not run", "result": {}})
        other = second.get(id, {"status": "not run", "result": {}})
        if one["status"] != other["status"]:
            lines.append(f"{id:{width}}  {one['status']} → {other['status']}")
        for key, (name, shown) in FIGURES.items():
            pair = (one["result"].get(key), other["result"].get(key))
            if None in pair:
                continue
            change = f" ({pair[1] / pair[0] - 1:+.1%})" if pair[0] else ""
            lines.append(f"{id:{width}}  {name}: {pair[0]:{shown}} → {pair[1]:{shown}}{change}")
    return lines


if __name__ == "__main__":
    cli.run(main)
