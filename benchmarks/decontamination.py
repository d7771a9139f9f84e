"""Precision and recall of the decontamination on a labeled set made of real records.

    python benchmarks/decontamination.py --items questions.jsonl --documents corpus/train \\
        --field context

Positives: each item's field inserted into a real document, verbatim and with changes that web
texts show. Negatives: for each item the document of the corpus that shares
the most word triples with it. Prints recall for each change, and precision.
"""

import gzip
import json
import random
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from data_prep.steps.decontamination.items import ItemField, read_items
from data_prep.steps.decontamination.matches import find_matches, read_phrases
from data_prep.steps.decontamination.ngrams import (
    Index,
    WordHasher,
    build_index,
    normal_form,
    windows,
)
from galen import cli

FULL_WIDTH = str.maketrans(
    {",": "，", ".": "。", ";": "；", ":": "：", "(": "（", ")": "）", "?": "？", "%": "％"}
)
CHANGES: dict[str, Callable[[str], str]] = {
    "verbatim": lambda text: text,
    "re-formatted": lambda text: "- " + text.upper().replace(". ", ".\n\n- ").replace(" ", "  "),
    "line breaks": lambda text: textwrap.fill(text, 60),
    "translated punctuation": lambda text: (
        text.translate(FULL_WIDTH).replace("-", "–").replace('"', "”")
    ),
    "first half": lambda text: " ".join(text.split()[: (len(text.split()) + 1) // 2]),
    "first quarter": lambda text: " ".join(text.split()[: (len(text.split()) + 3) // 4]),
    "every 25th word replaced": lambda text: " ".join(
        "something" if n % 25 == 24 else word for n, word in enumerate(text.split())
    ),
}


def texts_of(folder: Path, limit: int) -> list[str]:
    """Return the texts of up to `limit` documents of a corpus."""
    texts: list[str] = []
    for path in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return random.Random(0).sample(texts, min(limit, len(texts)))


def nearest(items: list[ItemField], texts: list[str]) -> list[str]:
    """Return for each item the text that shares the most word triples with it."""
    hasher = WordHasher()
    holders: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        for gram in set(windows(hasher(normal_form(text))[0], 3).tolist()):
            holders[gram].append(number)
    nearest_texts = []
    for item in items:
        shared: Counter[int] = Counter()
        for gram in set(windows(hasher(normal_form(item.text))[0], 3).tolist()):
            shared.update(holders.get(gram, ()))
        nearest_texts.append(texts[shared.most_common(1)[0][0]] if shared else texts[0])
    return nearest_texts


def hits(index: Index, hasher: WordHasher, text: str, ratio: float) -> list[int]:
    """Return the fields found in a text."""
    return [
        match.field
        for match in find_matches(index, hasher(normal_form(text))[0])
        if match.ratio >= ratio
    ]


def main() -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--items", required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--field", default="context")
    parser.add_argument("--limit", type=int, default=10000, help="documents of the corpus")
    arguments = parser.parse_args()
    items = [
        item
        for item in read_items([arguments.items], [arguments.field])
        if len(item.text.split()) >= 8
    ]
    texts = texts_of(arguments.documents, arguments.limit)
    hasher = WordHasher()
    similar = nearest(items, texts)
    for ngram in (8, 13, 20):
        for ratio in (0.0, 0.1, 0.5):
            index = build_index(items, ngram, 8, 10, read_phrases())
            known = {entry[1:3]: number for number, entry in enumerate(index.fields)}
            wanted = [
                (item, known[item.item, item.field])
                for item in items
                if (item.item, item.field) in known
            ]
            false = sum(bool(hits(index, hasher, text, ratio)) for text in similar)
            among_all = sum(bool(hits(index, hasher, text, ratio)) for text in texts)
            print(f"sequences of {ngram} words, ratio {ratio:g} or more, {len(wanted)} fields:")
            for name, change in CHANGES.items():
                found = sum(
                    number
                    in hits(index, hasher, f"{texts[n % len(texts)]} {change(item.text)}", ratio)
                    for n, (item, number) in enumerate(wanted)
                )
                print(
                    f"  {name:<26} recall {found / len(wanted):.4f}  precision beside the"
                    f" look-alikes {found / max(1, found + false):.4f}"
                )
            print(
                f"  look-alikes matched: {false} of {len(similar)}; of all {len(texts)} clean"
                f" documents {among_all}"
            )


if __name__ == "__main__":
    cli.run(main)
