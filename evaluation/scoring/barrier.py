"""How processes that share the work wait for each other."""

import time
from pathlib import Path

from galen.errors import DataError

POLL_SECONDS = 2.0
"""Seconds between two looks."""
TIMEOUT_SECONDS = 3600.0
"""Seconds without anything new before giving up."""


def wait_for_file(path: Path) -> None:
    """Wait until the first process has made a file or folder.

    Raises:
        DataError: it is not there after `TIMEOUT_SECONDS` seconds.
    """
    started = time.monotonic()
    while not path.exists():
        if time.monotonic() - started > TIMEOUT_SECONDS:
            raise DataError(f"the first process did not make {path}")
        time.sleep(POLL_SECONDS)
