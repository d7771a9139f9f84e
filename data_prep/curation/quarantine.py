"""Limit of the records and files that cannot be read."""

import json
from collections import Counter
from pathlib import Path

from galen.errors import DataError

PREFIX = "dropped_quarantined, "


def count_quarantined(counts: Counter[str]) -> int:
    """Return how many records the readers quarantined."""
    return sum(count for key, count in counts.items() if key.startswith(PREFIX))


def check_quarantine(counts: Counter[str], limit: float, folder: Path) -> None:
    """Check the readers' counts against the recipe's limit.

    The counts are `total`, `input_files`, `broken files`, `dropped_quarantined, …`.

    Args:
        counts: sums over all tasks.
        limit: highest fraction of invalid records, and of broken files.
        folder: working folder, for `quarantine/*.jsonl`.

    Raises:
        DataError: there is more; names the first three.
    """
    invalid = count_quarantined(counts)
    broken = counts["broken files"]
    if invalid <= limit * counts["total"] and broken <= limit * counts["input_files"]:
        return
    examples = []
    for path in sorted((folder / "quarantine").glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:  # `str.splitlines` would part a record at U+2028
            examples += [_example(json.loads(line)) for line in file]
    raise DataError(
        f"{invalid:,} of {counts['total']:,} records and {broken:,} of {counts['input_files']:,}"
        f" files cannot be read, more than max_error_rate={limit:g} allows:\n       "
        + "\n       ".join(examples[:3])
        + f"\n       (all are in {folder}/quarantine; "
        "repair or remove them, or allow more with max_error_rate=…, which resumes from here)"
    )


def _example(record: dict[str, str]) -> str:
    detail = record["detail"]
    if record["file"] in detail:
        return detail
    return f"{record['file']}, {record['position']}: {detail}"
