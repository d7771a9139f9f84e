"""Damage to files for the tests of commands.

A file is truncated, altered, of another kind, or has JSON values of the wrong types.

GALEN_MUTATIONS, 3 where it is not set, is how many damages each command sees of each file;
`damages` makes twice as many of all files.
"""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from galen import cli

MUTATIONS = int(os.environ.get("GALEN_MUTATIONS", "3"))
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    1.5,
    1e300,
    10**30,
    float("nan"),
    "",
    "x",
    "²",
    "\ud800",
    "../x",
    [],
    [[]],
    {},
    {"a": {}},
    [1, "x"],
]


def alter_json(content: bytes, seeded: random.Random) -> bytes:
    """Replace or remove one value, at any depth."""
    place = tree = json.loads(content)
    while isinstance(place, dict | list) and place:
        key = seeded.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or seeded.random() < 0.4:
            if seeded.random() < 0.2:
                del place[key]
            else:
                place[key] = seeded.choice(VALUES)
            break
        place = place[key]
    return json.dumps(tree).encode()


def mutate(path: Path, seeded: random.Random) -> str:
    """Damage a file; return how."""
    content = path.read_bytes()
    kind = seeded.choice(
        ["cut", "flip", "other", "json", "json"]
        if path.suffix == ".json"
        else ["cut", "flip", "flip", "other"]
    )
    if kind == "cut":
        content = content[: seeded.randrange(len(content))]
    elif kind == "flip":
        altered = bytearray(content)
        for _ in range(seeded.randint(1, 4)):
            altered[seeded.randrange(min(len(altered), 4000))] = seeded.randrange(256)
        content = bytes(altered)
    elif kind == "other":
        content = seeded.choice(
            [b"", b"null", b"[]", b"{}", b"\xff\xfe\x00", b"[" * 100_000, "²".encode(), b"9" * 5000]
        )
    else:
        content = alter_json(content, seeded)
    path.write_bytes(content)
    return kind


def damages(folder: Path, names: Sequence[str], count: int = 2 * MUTATIONS) -> Iterator[str]:
    """Damage or remove one of the files and restore it, so many times; yield what was done."""
    for number in range(count):
        draw = random.Random(f"{' '.join(names)} {number}")
        path = folder / draw.choice(names)
        content = path.read_bytes()
        if draw.random() < 0.1:
            path.unlink()
            kind = "removed"
        else:
            kind = mutate(path, draw)
        yield f"{path.relative_to(folder)}, {number}: {kind}"
        path.write_bytes(content)


def ended(
    main: Callable[[list[str]], int | None],
    arguments: list[object],
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """Run a command as a user would; return its exit code and what it printed."""
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: main([str(argument) for argument in arguments]))
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


def check_one_line(code: int, err: str, what: object) -> None:
    """Check that a command worked, or said in one line why it did not."""
    assert code in (0, 1, 2), (what, err)
    if code:
        assert err.count("error: ") == 1, (what, err)
        assert "\n" not in err[err.index("error: ") :].strip(), (what, err)
        assert "Traceback" not in err, (what, err)
