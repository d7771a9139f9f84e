"""Print how many labeled answers the robust reader extracts, by category and by language.

    python benchmarks/answer_extraction.py [--show] [--afrimed FOLDER] [FILE.jsonl …]

Without files: the sets in tests/evaluation/scoring/answers. `develop` was used while the reader was
written, `held_out` and `adversarial` were not. `--afrimed` adds 360 answers of 24 models in a clone
of https://github.com/intron-innovation/AfriMed-QA: their license (CC BY-NC-SA 4.0) leaves only
their hashes and labels here.
"""

import csv
import hashlib
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from evaluation.scoring import answer_extraction
from galen import cli
from galen.errors import DataError

ANSWERS = Path(__file__).resolve().parents[1] / "tests/evaluation/scoring/answers"


def outcome(row: dict[str, Any]) -> str:
    """Return right, unparsed or wrong for a labeled answer."""
    allows_several = row.get("allows_several", True)
    letters = answer_extraction.extract(row["text"], row["options"], allows_several=allows_several)
    expected = tuple(row["expected"]) if row["expected"] else None
    if letters == expected:
        return "right"
    return "wrong" if letters else "unparsed"


def afrimed(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the labeled answers in a clone of AfriMed-QA, by set.

    Raises:
        DataError: an answer is missing.
    """
    answers: dict[str, dict[str, Any]] = {}
    csv.field_size_limit(1 << 30)
    for path in sorted(folder.glob("results/*/*mcq*.csv")):
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            for record in csv.DictReader(lines):
                text = record.get("outputs") or ""
                options = {letter: record[letter] for letter in "ABCDE" if record.get(letter)}
                key = hashlib.sha256("\n".join([text, *options.values()]).encode()).hexdigest()
                answers[key] = {"text": text, "options": options}
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with (ANSWERS / "afrimed.tsv").open(encoding="utf-8", newline="") as lines:
        for label in csv.DictReader(lines, delimiter="\t"):
            if label["sha256"] not in answers:
                raise DataError(f"{folder}/results lacks an answer of {label['model']}")
            row = answers[label["sha256"]] | {
                "expected": None if label["expected"] == "-" else [label["expected"]],
                "language": "en",
                "category": "real",
                "allows_several": False,
            }
            sets[f"afrimed {label['set']}"].append(row)
    return sets


def main() -> None:
    """Print one table per file."""
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(ANSWERS.glob("*.jsonl")))
    parser.add_argument("--show", action="store_true", help="print what is not right")
    parser.add_argument("--afrimed", type=Path, metavar="FOLDER", help="clone of AfriMed-QA")
    options = parser.parse_args()
    sets = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in options.files
    }
    if options.afrimed:
        sets |= afrimed(options.afrimed)
    for name, rows in sets.items():
        begin = time.perf_counter()
        outcomes = [outcome(row) for row in rows]
        seconds = time.perf_counter() - begin
        print(f"{name}: {len(rows)} answers in {seconds:.2f} s")
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
