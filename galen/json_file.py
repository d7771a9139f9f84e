"""JSON files that a command reads: their content, or one message that names the file."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galen.errors import DataError, one_line


def check(path: str | Path) -> None:
    """Check that a file that is only passed on holds JSON of any type.

    Raises:
        DataError: it does not, or cannot be read.
    """
    read(path)


def read(path: str | Path) -> Any:
    """Read a file that holds JSON of any type.

    Raises:
        DataError: it is missing or damaged.
    """
    if Path(path).is_fifo():  # it would be waited for
        raise DataError(f"cannot read {path}: it is a pipe")
    with _as_data_error(path):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Numbers that are not finite and halves of a surrogate pair are refused: Python reads them, but
    what is written from them is no JSON.

    Raises:
        DataError: it is missing or damaged, or holds something else.
    """
    value = read(path)
    with _as_data_error(path):
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold one JSON object")
    return value


@contextlib.contextmanager
def _as_data_error(path: str | Path) -> Iterator[None]:
    """Tell in one line what is wrong with a file that is read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {one_line(error)}") from None
