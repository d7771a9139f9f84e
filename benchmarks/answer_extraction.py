"""Print how many labeled answers the robust reader extracts, by category and by language.

    python benchmarks/answer_extraction.py [--show] [FILE.jsonl …]

Without files: the sets in tests/evaluation/scoring/answers. `develop` was used while the reader was
written, `held_out` and `adversarial` were not.
"""

import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from evaluation.scoring import answer_extraction
from galen import cli

ANSWERS = Path(__file__).resolve().parents[1] / "tests/evaluation/scoring/answers"


def outcome(row: dict[str, Any]) -> str:
    """Return right, unparsed or wrong for a labeled answer."""
    letters = answer_extraction.extract(row["text"], row["options"])
    expected = tuple(row["expected"]) if row["expected"] else None
    if letters == expected:
        return "right"
    return "wrong" if letters else "unparsed"


def main() -> None:
    """Print one table per file."""
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(ANSWERS.glob("*.jsonl")))
    parser.add_argument("--show", action="store_true", help="print what is not right")
    options = parser.parse_args()
    for path in options.files:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        begin = time.perf_counter()
        outcomes = [outcome(row) for row in rows]
        seconds = time.perf_counter() - begin
        print(f"{path.stem}: {len(rows)} answers in {seconds:.2f} s")
        print_table(rows, outcomes)
        if options.show:
            for row, result in zip(rows, outcomes, strict=True):
                if result != "right":
                    print(f"  {result}, expected {row['expected']}: {row['text'][-300:]!r}")


def print_table(rows: list[dict[str, Any]], outcomes: list[str]) -> None:
    """Print the rates of a file, of its categories and of its languages."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for row, result in zip(rows, outcomes, strict=True):
        for group in ("all", row["category"], row["language"]):
            groups[group][result] += 1
    for group, counts in sorted(groups.items(), key=lambda item: (item[0] != "all", item[0])):
        total = counts.total()
        print(
            f"  {group:20} {total:4}  right {counts['right'] / total:7.2%}"
            f"  unparsed {counts['unparsed']:3}  wrong {counts['wrong']:3}"
        )


if __name__ == "__main__":
    main()
