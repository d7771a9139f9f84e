"""Damaged training records: reading gives records or one message, never another exception.

GALEN_FUZZ is the number of damaged files (default 300); the seed is fixed.
"""

import json
import os
import random

import pytest

from finetune.config.recipe import Data
from finetune.data import record, training_data
from galen.errors import GalenError

QUESTION = {
    "id": "q1",
    "context": "10 adults.",
    "question": "What?",
    "options": {"A": "Aspirin", "B": "Heparin"},
    "answer": "A",
}
SAMPLES = {
    "question": [QUESTION, {**QUESTION, "id": "q2", "answer": "B"}],
    "pair": [
        {"prompt": "p", "completion": "c"},
        {"id": "7", "prompt": "ä 什", "completion": "c\n"},
    ],
    "chat": (
        [
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "human", "content": "q"},
                    {"role": "gpt", "content": "a"},
                ]
            }
        ]
        * 2
    ),
    "instruction": [
        {"instruction": "Name it.", "input": "Gums.", "output": "Scurvy."},
        {"instruction": "i", "output": "o"},
    ],
    "asked": [{"question": "When?", "answer": "Now."}] * 2,
}
VALUES = [
    None,
    True,
    0,
    -1,
    1e400,
    2**70,
    "",
    " ",
    "\0",
    "\u2028",
    "x" * 100_000,
    [],
    {},
    [None],
    {"A": None},
    [[[[]]]],
    {"role": 1},
    "A,B",
]
BYTES = [
    b"\0",
    b"\n",
    b'"',
    b"\\",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    b"{",
    b"}",
    b"[" * 2000,
    b",",
    b"null",
    b"NaN",
    b"1" * 400,
    b"\r",
]


def damage(lines, random):
    """Return the bytes of a JSONL file with a wrong value or key, or a few wrong bytes."""
    lines = json.loads(json.dumps(lines))
    if random.random() < 0.6:
        node = random.choice(lines)
        while random.random() < 0.5 and isinstance(node, dict | list) and node:
            inner = random.choice(list(node.values()) if isinstance(node, dict) else node)
            if not isinstance(inner, dict | list) or not inner:
                break
            node = inner
        place = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        if random.random() < 0.3:
            del node[place]
        else:
            node[place] = random.choice(VALUES)
    content = b"".join(
        json.dumps(line, ensure_ascii=random.random() < 0.5).encode() + b"\n" for line in lines
    )
    for _ in range(random.choice([0, 1, 1, 3])):
        place = random.randrange(len(content))
        content = (
            content[:place] + random.choice(BYTES) + content[place + random.choice([0, 1, 5]) :]
        )
    return content[: random.randrange(len(content))] if random.random() < 0.2 else content


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_damaged_files_give_records_or_one_line(tmp_path, kind):
    draw, told = random.Random(kind), 0
    path = tmp_path / "train.jsonl"
    for _ in range(int(os.environ.get("GALEN_FUZZ", "300")) // len(SAMPLES)):
        path.write_bytes(damage(SAMPLES[kind], draw))
        try:
            assert record.read(path)
            assert training_data.read(
                Data(train=str(path), protocol="meditron_chat_cot", validation_fraction=0.5)
            ).train
        except GalenError as error:
            told += 1
            assert str(error) and "\n" not in str(error)
    assert told > 10


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.jsonl"])
def test_a_file_that_is_no_text_is_reported(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08\0\0\0half")
    with pytest.raises(GalenError, match=name):
        record.read(tmp_path / name)
