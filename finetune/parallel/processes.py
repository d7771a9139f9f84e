"""The processes of a run, as torchrun or Slurm's job steps start them."""

import datetime
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from galen.errors import GalenError

logger = logging.getLogger(__name__)

_LONGEST_WAIT = datetime.timedelta(hours=12)
_DECISION = "galen/decision"
_kept: list[Any] = []
"""The rendezvous store, which must live as long as the processes."""


def count() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the process that writes and logs."""
    return os.environ.get("RANK", "0") == "0"


def log_once(message: str) -> None:
    """Log a message from the first process only."""
    if is_first():
        logger.info(message)


def first_decides(decide: Callable[[], bool]) -> bool:
    """Return the first process' result in all processes.

    If it fails, only the first reports the error, and the others exit, too.
    """
    if count() == 1:
        return decide()
    from torch.distributed import DistNetworkError, rendezvous

    store, *_ = next(iter(rendezvous("env://", timeout=_LONGEST_WAIT)))
    _kept.append(store)
    if not is_first():
        try:
            store.wait([_DECISION], _LONGEST_WAIT)
            decision, code = json.loads(store.get(_DECISION))
        except DistNetworkError:
            # the first process, which may hold the store, has ended and reported why
            sys.exit(1)
        if code:
            sys.exit(code)
        return bool(decision)
    decision = False
    code = 1
    try:
        decision = decide()
        code = 0
    except GalenError as error:
        code = error.exit_code
        raise
    finally:
        store.set(_DECISION, json.dumps([decision, code]))
    return decision
