"""Command-line conventions of all rooms.

Recipe arguments, help from the recipe's own documentation, exit codes.
"""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from galen import commands, log, worker
from galen.errors import GalenError, UnknownOptionError, UsageError, closest


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit.

    The exit code is 0 when it worked, 2 for wrong usage, 1 for bad data, 130 when interrupted.

    A `GalenError`, a file that the system refuses and a full disk are for the user to put right and
    print as one line; any other exception is a bug and keeps its traceback. One of several
    processes ends with its launcher.
    """
    worker.exit_with_launcher()
    log.configure()
    try:
        with commands.explain_missing_library(commands.script_verb()):
            code = main() or 0
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except GalenError as error:
        code = error.exit_code
        _report(printable(str(error)), code)
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print("interrupted; run the same command again to resume", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output went away, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        if (refusal := os_error_message(error)) is None:
            raise
        code = 1
        _report(printable(refusal), code)
    sys.exit(code)


def _report(message: str, code: int) -> None:
    """Print an error, which ends with an exit code, and leave it for the launcher.

    The launcher asks a process to end as soon as another has ended: that waits until both are done,
    so that it knows what was printed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if printed := is_reporting_rank():
        print(f"error: {message}", file=sys.stderr, flush=True)
    report_to_launcher(message, code, printed)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def report_to_launcher(message: str, code: int, printed: bool = True) -> None:
    """Write why this process ends where torchrun looks for it.

    Otherwise its report would speak of a traceback that does not exist.

    Args:
        message: why.
        code: the exit code, which a signal that comes from now on may replace.
        printed: whether the error was printed.
    """
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {
            "py_callstack": message,
            "timestamp": str(int(time.time())),
            "exit_code": code,
            "printed": printed,
        }
        record = {"message": message, "extraInfo": extra}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": record}), encoding="utf-8")


def printable(text: str) -> str:
    """Return a message with its control characters escaped.

    Names out of damaged files and of odd files are in it: printed as they are, they could command
    the terminal.
    """
    return "".join(
        (
            repr(character)[1:-1]
            if unicodedata.category(character)[0] == "C" and character != "\n"
            else character
        )
        for character in text
    )


def is_reporting_rank() -> bool:
    """Return whether this process reports an error.

    All processes that torchrun starts on a machine meet a user's mistake; one reports it.
    """
    distributed = sys.modules.get("torch.distributed")
    under_way = (
        distributed is not None and distributed.is_available() and distributed.is_initialized()
    )
    return under_way or os.environ.get("LOCAL_RANK", "0") == "0"


def os_error_message(error: Exception) -> str | None:
    """Return what the system refused, or None.

    Libraries that write by themselves report a full disk in the message alone.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    full = any(
        os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )
    return f"cannot write: {error}" if full else None


class ArgumentParser(argparse.ArgumentParser):
    """Parser of a command: the options of all commands, and an epilog that keeps its lines.

    Options may not be abbreviated, and an unknown one is reported before anything else.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(description=description, **options)
        self.add_argument(
            "--log-level",
            action=_SetLogLevel,
            choices=log.LEVELS,
            default="info",
            help="messages to show on standard error [info]",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line as argparse does.

        Raises:
            UnknownOptionError: it has an option that the parser does not know.
            UsageError: it is wrong in another way.
        """
        arguments = list(sys.argv[1:] if args is None else args)
        # the options of a subcommand are checked by its own parser
        if self._subparsers is None:
            self._refuse_unknown_options(arguments)
        return super().parse_known_args(arguments, namespace)

    def _refuse_unknown_options(self, arguments: list[str]) -> None:
        known = self._option_string_actions
        for argument in arguments:
            if argument == "--":
                return
            option = argument.partition("=")[0]
            # argparse takes a word with a blank for a value
            is_option = option.startswith("--") and " " not in argument
            if is_option and option not in known:
                extended = [name for name in known if name.startswith(option)]
                suggestion = extended[0] if extended else closest(option, known)
                raise UnknownOptionError(option, suggestion, self._help_hint())

    def _help_hint(self) -> str:
        return f"; `{self.prog} --help` lists the options"

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}{self._help_hint()}") from None


class _SetLogLevel(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        log.configure(values)
        setattr(namespace, self.dest, values)


_OVERRIDES = (
    "replaces a value of the recipe; dots descend: a.b=1, a.0.b=1; or a further YAML file whose"
    " keys replace the recipe's"
)


def recipe_parser(description: str, recipe_class: type) -> ArgumentParser:
    """Return a parser for `RECIPE.yaml [key=value …]` whose help documents every key.

    Each is listed with its default and its meaning.
    """
    # pydantic takes a tenth of a second, which commands without a recipe need not wait for
    from galen.recipe_help import describe

    parser = ArgumentParser(description, epilog="keys of the recipe:\n" + describe(recipe_class))
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="what to do, as YAML")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=_OVERRIDES)
    return parser
