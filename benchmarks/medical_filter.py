"""Precision and recall of the medical filter: real abstracts against real everyday text.

    # the wheel holds 300 news reports of the Australian Broadcasting Corporation
    pip download --no-deps gensim
    python benchmarks/medical_filter.py --medical corpus/train \\
        --everyday gensim-*.whl:gensim/test/test_data/lee_background.cor

A text file has one document a line; `wheel:member` reads it out of a package. --language says in
which language they are.
"""

import gzip
import json
import random
import time
import zipfile
from pathlib import Path

from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.filters.medical import MedicalFilter, MedicalSettings
from galen import cli


def main() -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--medical", required=True, help="curated corpus, or text file")
    parser.add_argument("--everyday", required=True, help="text file")
    parser.add_argument("--language", default="en")
    parser.add_argument("--limit", type=int, default=5000)
    arguments = parser.parse_args()
    medical = read(arguments.medical)
    everyday = read(arguments.everyday)
    random.Random(0).shuffle(medical)
    medical = medical[: arguments.limit]
    step: MedicalFilter = build_step(MedicalSettings())
    start = time.perf_counter()
    hits = [is_kept(step, text, arguments.language) for text in medical]
    seconds = time.perf_counter() - start
    false_alarms = [text for text in everyday if is_kept(step, text, arguments.language)]
    recall = sum(hits) / len(hits)
    false_alarm_rate = len(false_alarms) / len(everyday)
    print(
        f"recall {recall:.3f} ({sum(hits)} of {len(hits)} medical), false alarms"
        f" {false_alarm_rate:.3f} ({len(false_alarms)} of {len(everyday)} everyday)"
    )
    print(f"precision on equal numbers of both: {recall / (recall + false_alarm_rate):.3f}")
    print(f"{len(medical) / seconds:,.0f} documents/s on one core")
    long = [text for text in medical if len(text.split()) >= 200]
    if long:
        long_recall = sum(is_kept(step, text, arguments.language) for text in long) / len(long)
        print(f"recall on texts of 200 words or more: {long_recall:.3f} of {len(long)}")
    for text in false_alarms:
        print("  false alarm:", text[:150].replace("\n", " "))


def is_kept(step: MedicalFilter, text: str, language: str) -> bool:
    """Return whether the filter keeps a text."""
    return step.filter(Document(text=text, id="", metadata={"text_language": language})) is True


def read(where: str) -> list[str]:
    """Return the documents of a corpus folder, a text file, or a text file in a wheel.

    The last is written as `wheel:member`.
    """
    if Path(where).is_dir():
        texts = []
        for path in sorted(Path(where).rglob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                texts += [json.loads(line)["text"] for line in lines]
        return texts
    archive, _, member = where.partition(":")
    if member:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member).decode("utf-8", "replace").splitlines()
    return [line for line in Path(where).read_text(encoding="utf-8").splitlines() if line.strip()]


if __name__ == "__main__":
    cli.run(main)
