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
    parser.add_argument("--most", type=int, default=5000)
    arguments = parser.parse_args()
    medical, everyday = read(arguments.medical), read(arguments.everyday)
    random.Random(0).shuffle(medical)
    medical = medical[: arguments.most]
    step: MedicalFilter = build_step(MedicalSettings())
    start = time.perf_counter()
    taken = [kept(step, text, arguments.language) for text in medical]
    seconds = time.perf_counter() - start
    wrong = [text for text in everyday if kept(step, text, arguments.language)]
    recall, false = sum(taken) / len(taken), len(wrong) / len(everyday)
    print(
        f"recall {recall:.3f} ({sum(taken)} of {len(taken)} medical), false alarms {false:.3f}"
        f" ({len(wrong)} of {len(everyday)} everyday)"
    )
    print(f"precision with as many of one as of the other: {recall / (recall + false):.3f}")
    print(f"{len(medical) / seconds:,.0f} documents/s on one core")
    if long := [text for text in medical if len(text.split()) >= 200]:
        share = sum(kept(step, text, arguments.language) for text in long) / len(long)
        print(f"recall on those of 200 words or more: {share:.3f} of {len(long)}")
    for text in wrong:
        print("  false alarm:", text[:150].replace("\n", " "))


def kept(step: MedicalFilter, text: str, language: str) -> bool:
    """Say whether the filter keeps a text."""
    return step.filter(Document(text=text, id="", metadata={"text_language": language})) is True


def read(where: str) -> list[str]:
    """Return the documents of a corpus folder, a text file, or a text file in a wheel.

    The last is given as `wheel:member`.
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
