"""Errors that a user can fix.

Each carries one complete message; the command line prints it without a traceback.

The same mistake has the same exit code in every room:

- 2, the command or the recipe is wrong, whatever the data: an unknown option, key, name (task,
  protocol, step …), a value that is not allowed, options that do not go together, an output that
  belongs to other work, a recipe that cannot be read or is not YAML.
- 1, files are wrong: a file or folder that the command or the recipe names is not there, is empty,
  damaged, of another type, or does not match another one; another process holds the output; the
  disk is full.
"""

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn


class GalenError(Exception):
    """Base of all errors that are the input's fault rather than the program's."""

    exit_code = 1


class UsageError(GalenError, ValueError):
    """The command line or a recipe asks for something impossible. Exit code 2."""

    exit_code = 2


class UnknownOptionError(UsageError):
    """The command line has an option that the command does not know.

    Attributes:
        option: as it was given.
        suggestion: the option that was probably meant, or None.
    """

    def __init__(self, option: str, suggestion: str | None, hint: str) -> None:
        self.option = option
        self.suggestion = suggestion
        meant = f"; did you mean {suggestion!r}?" if suggestion else ""
        super().__init__(f"unknown option {option!r}{meant}{hint}")


class DataError(GalenError, ValueError):
    """A file is missing, damaged, empty, or does not fit another one. Exit code 1."""


class MissingInputError(UsageError, DataError):
    """A file or folder that the command or the recipe names does not exist.

    Reported before any work, like wrong usage; exit code 1.
    """

    exit_code = 1


class OutputConflictError(UsageError, DataError):
    """The output exists already and belongs to other work, or to nobody that the command knows.

    Exit code 2, as above.
    """

    exit_code = 2


def raise_on_all_ranks(error: GalenError) -> NoReturn:
    """Raise an error that all processes of a run have met.

    The first reports it; the others end silently with its exit code.
    """
    if os.environ.get("RANK", "0") == "0":
        raise error
    sys.exit(error.exit_code)


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the name in `known` that was probably meant, or None."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the end of a message about a name that is not in `known`.

    It suggests the likely name, or lists all of them.
    """
    meant = closest(name, known)
    return f"did you mean {meant!r}?" if meant else f"known: {', '.join(known)}"


def install(extra: str) -> str:
    """Return the command that installs an extra of `pyproject.toml`.

    It names the checkout or the wheel that is installed, not the project: the package index may
    have another project of that name.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        return f"pip install '{_wheel()}[{extra}]'"
    folder = "." if root == Path.cwd() else root
    return f"pip install -e '{folder}[{extra}]'"


def _wheel() -> str:
    """Return the path of the wheel that is installed, as far as pip has recorded it."""
    import importlib.metadata
    from urllib.parse import unquote, urlparse

    try:
        record = importlib.metadata.distribution("galen").read_text("direct_url.json") or ""
        path = unquote(urlparse(json.loads(record)["url"]).path)
    except (importlib.metadata.PackageNotFoundError, ValueError, LookupError):
        return "WHEEL"
    return path or "WHEEL"


Faults = tuple[type[BaseException], ...]
MALFORMED: Faults = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
"""What code raises over values that are not what it expects."""


@contextlib.contextmanager
def as_data_error(
    message: Callable[[BaseException], str], faults: Faults = MALFORMED
) -> Iterator[None]:
    """Report errors raised inside the block as faults of a file, in one line.

    Args:
        message: makes the line of what was raised.
        faults: what counts; the panic of a library in Rust, which is no Exception, always does.

    Raises:
        DataError: such a fault was raised.
    """
    try:
        yield
    except GalenError:
        raise
    except BaseException as error:
        if not isinstance(error, faults) and type(error).__name__ != "PanicException":
            raise
        raise DataError(message(error)) from error


def malformed(path: object) -> contextlib.AbstractContextManager[None]:
    """Report errors raised while values of a file are read as faults of the file.

    A value that is missing, or has another type than the code expects, is the file's fault.
    """

    def message(error: BaseException) -> str:
        if isinstance(error, KeyError):
            return f"{path}: the field {error} is missing"
        if isinstance(error, ValueError):
            return f"{path}: {one_line(error)}"
        return f"{path} is damaged: {type(error).__name__}: {one_line(error)}"

    return as_data_error(message)


def one_line(error: BaseException) -> str:
    """Return what a library's exception says as one line, the end of a long text cut off."""
    text = str(error)
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's
        text = "; ".join(_of_validation(fault) for fault in error.errors())
    return " ".join(text.split())[:400]


def _of_validation(fault: dict[str, Any]) -> str:
    """Return a fault that pydantic found, with the field and its value."""
    text = str(fault["msg"]).removeprefix("Value error, ")
    field = ".".join(str(part) for part in fault["loc"])
    if not field:
        return text
    value = "" if fault["type"] == "missing" else f" = {fault['input']!r}"
    return f"{field}{value}: {text}"
