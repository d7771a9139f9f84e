"""Seeded damage to files: bytes changed, lost, doubled or inserted, JSON values replaced."""

import json
import os
import random
from typing import Any

ROUNDS = int(os.environ.get("GALEN_FUZZ", "250"))
"""Inputs of each fuzz test; GALEN_FUZZ=20000 is a long run."""
PIECES = [
    b'"',
    b"'",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{",
    b"[",
    b"}",
    b"]",
    b",",
    b"\n",
    b"\r",
    b"null",
    b"-1e999",
    b"\\ud800",
    b"\x1f\x8b",
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    " ",
    "A",
    "a\nb",
    "x" * 300,
    [],
    {},
    [[]],
    ["A"],
    [None],
    {"A": None},
    {"": "x"},
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one to three damages."""
    for _ in range(draw.randint(1, 3)):
        place, length = draw.randrange(len(content) + 1), draw.choice([1, 2, 8, 64])
        match draw.randrange(6):
            case 0:
                content = content[:place]
            case 1:
                content = content[:place] + content[place + length :]
            case 2:
                content = content[:place] + draw.choice(PIECES) + content[place:]
            case 3:
                content = content[:place] + draw.randbytes(length) + content[place + length :]
            case 4:
                content = (
                    content[:place]
                    + content[place : place + length] * 2
                    + content[place + length :]
                )
            case 5:
                piece = draw.choice([b"[", b'"', b"9", b'{"a":', b"\xe2\x80\xa8", b" "])
                content = (
                    content[:place] + piece * draw.choice([1000, 5000, 140_000]) + content[place:]
                )
    return content


def replaced(tree: Any, draw: random.Random) -> Any:
    """Return a JSON tree in which one value or key is another, is gone, or is there twice."""
    tree = json.loads(json.dumps(tree))
    places = list(_places(tree))
    holder, key = draw.choice(places)
    match draw.randrange(4):
        case 0 | 1:
            holder[key] = draw.choice(VALUES)
        case 2:
            del holder[key]
        case 3 if isinstance(holder, dict):
            holder[str(key) + draw.choice(["x", " ", "\n"])] = holder.pop(key)
        case _:
            holder[key] = [holder[key], holder[key]]
    return tree


def _places(tree: Any) -> Any:
    entries = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in entries:
        yield tree, key
        yield from _places(value)
