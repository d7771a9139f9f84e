"""Barrier of processes that share the work: they wait for a file."""

import time
from pathlib import Path

from galen.errors import DataError

POLL_SECONDS = 2.0
"""Interval at which the file is looked for."""
TIMEOUT_SECONDS = 3600.0
"""Time without progress after which waiting fails."""


def wait_for_file(path: Path) -> None:
    """Wait until the first process has made a file or folder.

    Raises:
        DataError: it does not exist after `TIMEOUT_SECONDS` seconds.
    """
    started = time.monotonic()
    while not path.exists():
        if time.monotonic() - started > TIMEOUT_SECONDS:
            raise DataError(f"the first process did not make {path}")
        time.sleep(POLL_SECONDS)
