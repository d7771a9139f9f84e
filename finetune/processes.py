"""The processes of a run, as torchrun or Slurm's job steps start them."""

import os
import sys


def count() -> int:
    """Return how many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Say whether this is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Tell the user, once."""
    if is_first():
        print(line, file=sys.stderr, flush=True)
