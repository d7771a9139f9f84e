"""The enlarged corpus of `preprocess.py`: curated texts, repeated with distinct edits."""

import argparse
import json
import random
import re
from pathlib import Path

from data_prep.files.find import find_files
from data_prep.files.json_records import parse
from data_prep.tokenization.input_blocks import ENDINGS, FileRange, read_blocks, read_range

TINY = 20
"""Texts of the corpus that times the start-up."""


def make_corpora(arguments: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Write the enlarged corpus, its beginning for the slow commands, and a tiny one."""
    texts = []
    for path in find_files(arguments.corpus, ENDINGS):
        texts += texts_of(path)
    sizes = {"full": arguments.megabytes * 1e6, "slow": arguments.slow_megabytes * 1e6}
    paths = {name: work / f"{name}.jsonl" for name in (*sizes, "tiny")}
    paths["tiny"].write_text("".join(_line(text) for text in texts[:TINY]), encoding="utf-8")
    written = 0
    repetition = 0
    with (
        paths["full"].open("w", encoding="utf-8") as full,
        paths["slow"].open("w", encoding="utf-8") as slow,
    ):
        while written < sizes["full"]:
            edit = Edit(repetition)
            for text in texts:
                line = _line(edit(text) if repetition else text)
                full.write(line)
                if written < sizes["slow"]:
                    slow.write(line)
                written += len(line.encode())
                if written >= sizes["full"]:
                    break
            repetition += 1
    print(
        f"{written / 1e6:,.0f} MB of {len(texts):,} abstracts, {repetition} times with distinct"
        " edits",
        flush=True,
    )
    return paths


def _line(text: str) -> str:
    return json.dumps({"text": text}, ensure_ascii=False) + "\n"


class Edit:
    """Changes every number and one word in six of a text, differently for each seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return re.sub(r"\d+|[A-Za-z]{4,}", self._change, text)

    def _change(self, match: re.Match[str]) -> str:
        word = match[0]
        chance = self._random.random
        if word[0].isdigit():
            return "".join(str(int(chance() * 10)) for _ in word)
        if chance() > 1 / 6:
            return word
        index = int(chance() * len(word))
        return word[:index] + "abcdefghijklmnopqrstuvwxyz"[int(chance() * 26)] + word[index + 1 :]


def texts_of(path: Path) -> list[str]:
    """Return the texts of a JSONL file."""
    texts: list[str] = []
    for block in read_blocks([FileRange(path)], 1 << 22, ["text"]):
        data = read_range(path, block.start, block.end) if block.data is None else block.data
        texts += parse(data, ["text"]).fields[0]
    return texts
