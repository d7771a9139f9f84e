"""How `galen.api` calls a command: arguments, exit codes, errors and signals."""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from galen import cli, commands, launch, option_origins, stop_signals
from galen.errors import DataError, UnknownOptionError, UsageError

Overrides = Mapping[str, Any]
"""Values for dotted keys of a recipe."""

_INTERRUPTED = 128 + signal.SIGINT


def run_command(
    verb: str, positional: Sequence[Any], options: Mapping[str, Any], codes: Sequence[int] = (0,)
) -> int:
    """Run a command in this process and return its exit code, one of `codes`.

    Args:
        verb: the command's verb.
        positional: its positional arguments.
        options: its options by name.
        codes: exit codes that are no error.

    Raises:
        GalenError: the command refuses its options or files, or ends with another exit code.
        KeyboardInterrupt: it was interrupted.
    """
    arguments = [*words(verb, positional), *flags(options)]
    try:
        with as_command(verb), _as_keywords(options):
            code = commands.call(verb, arguments) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    if code in codes:
        return code
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    message = f"{verb} ended with exit code {code}"
    raise UsageError(message) if code == UsageError.exit_code else DataError(message)


@contextlib.contextmanager
def _as_keywords(options: Mapping[str, Any]) -> Iterator[None]:
    """Name options in the messages of wrong usage as a caller writes them: `append_eod`."""
    try:
        yield
    except UnknownOptionError as error:
        keyword = _keyword(error.option)
        meant = f"; did you mean {_keyword(error.suggestion)!r}?" if error.suggestion else ""
        raise UsageError(f"unknown argument {keyword!r}{meant}") from None
    except UsageError as error:
        keywords = dict.fromkeys(options, "")
        error.args = (option_origins.with_keys(str(error), keywords),)
        raise


def _keyword(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


@contextlib.contextmanager
def as_command(verb: str) -> Iterator[None]:
    """While a command runs: its messages name the verb. Afterwards its signals are given back.

    Raises:
        DataError: the system refuses a file.
    """
    argv = sys.argv
    function = os.environ.get(launch.API_FUNCTION)
    handlers = {number: signal.getsignal(number) for number in stop_signals.NUMBERS}
    sys.argv = [f"galen {verb}"]
    os.environ[launch.API_FUNCTION] = f"galen.api.{verb.replace('-', '_')}"
    try:
        yield
    except OSError as error:
        if (message := cli.os_error_message(error)) is None:
            raise
        raise DataError(message) from error
    finally:
        sys.argv = argv
        if function is None:
            del os.environ[launch.API_FUNCTION]
        else:
            os.environ[launch.API_FUNCTION] = function
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as on a command line.

    Raises:
        UsageError: a value is none of an option.
    """
    command_line: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            command_line.append(flag)
        elif isinstance(value, list | tuple):
            command_line += [flag, *words(name, value)]
        elif value is not None and value is not False:
            command_line.append(f"{flag}={word(name, value)}")
    return command_line


def words(name: str, values: Any) -> list[str]:
    """Return a list of values as on a command line.

    Raises:
        UsageError: it is no list, or one is neither a text, a path nor a number.
    """
    if not isinstance(values, list | tuple):
        raise UsageError(f"{name}: {values!r} is not a list of paths or texts")
    return [word(name, value) for value in values]


def word(name: str, value: Any) -> str:
    """Return a value as on a command line.

    Raises:
        UsageError: it is neither a text, a path nor a number.
    """
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if isinstance(value, str | os.PathLike | int | float) and not isinstance(value, bool):
        return str(value)
    raise UsageError(f"{name}: {value!r} is neither a text, a path nor a number")


def recipe_words(recipe: str | Path, overrides: Overrides | None) -> list[str]:
    """Return a recipe and its overrides as on a command line.

    Raises:
        UsageError: one has the wrong type.
    """
    return [word("recipe", recipe), *assignments(overrides)]


def assignments(overrides: Overrides | None) -> list[str]:
    """Return overrides as on a command line.

    Raises:
        UsageError: a key is no text, or YAML has no such value.
    """
    if overrides is None:
        return []
    if not isinstance(overrides, Mapping):
        raise UsageError(f"overrides: {overrides!r} is not a dictionary of dotted keys and values")
    for key in overrides:
        if not isinstance(key, str):
            raise UsageError(f"overrides: the key {key!r} is not a text")
    return [f"{key}={_yaml(key, value)}" for key, value in overrides.items()]


def _yaml(key: str, value: Any) -> str:
    """Return a value as JSON that YAML reads alike: it does not know JSON's pairs of surrogates."""

    def to_json(other: Any) -> Any:
        if isinstance(other, os.PathLike):
            return os.fspath(other)
        if hasattr(other, "item"):  # a number of numpy or torch
            return other.item()
        raise TypeError(f"a {type(other).__name__} is not a value of a recipe")

    try:
        text = json.dumps(value, default=to_json, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"override {key!r}: {error}") from None
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
