"""What could not be read: how much of it a corpus bears."""

import json
from collections import Counter
from pathlib import Path

from galen.errors import DataError

PREFIX = "dropped_quarantined, "


def quarantined(counts: Counter[str]) -> int:
    """Return how many records the readers put aside."""
    return sum(count for key, count in counts.items() if key.startswith(PREFIX))


def check_quarantine(counts: Counter[str], limit: float, folder: Path) -> None:
    """Check the readers' counts against the recipe's limit.

    The counts are `total`, `input_files`, `broken files`, `dropped_quarantined, …`.

    Args:
        counts: sums over all tasks.
        limit: highest share of bad records among all records, and of broken files among all files.
        folder: working folder, for `quarantine/*.jsonl`.

    Raises:
        DataError: there is more; names the first three.
    """
    bad, broken = quarantined(counts), counts["broken files"]
    if bad <= limit * counts["total"] and broken <= limit * counts["input_files"]:
        return
    examples = []
    for path in sorted((folder / "quarantine").glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:  # `str.splitlines` would part a record at U+2028
            examples += [_example(json.loads(line)) for line in file]
    raise DataError(
        f"{bad:,} of {counts['total']:,} records and {broken:,} of {counts['input_files']:,} files"
        f" cannot be read, more than max_error_rate={limit:g} allows:\n       "
        + "\n       ".join(examples[:3])
        + f"\n       (all are in {folder}/quarantine; "
        "mend or remove them, or allow more with max_error_rate=…, which goes on from here)"
    )


def _example(record: dict[str, str]) -> str:
    known = record["file"] in record["detail"]
    return (
        record["detail"] if known else f"{record['file']}, {record['position']}: {record['detail']}"
    )
