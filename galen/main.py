"""The `galen` command: one verb for each command of the rooms."""

import importlib
import sys
from collections.abc import Sequence

from galen import __version__, cli, log
from galen.commands import STAGES, Stage, Verb
from galen.errors import UsageError, did_you_mean, install

_USAGE = "usage: galen VERB [options]"
_DESCRIPTION = """\
Galen turns a general language model into a medical one and measures whether that helped.

`galen VERB --help` explains a verb with an example. Each runs in any folder and is resumed by the
same command after an interruption."""


def main() -> None:
    """Run the verb of the command line, and exit with its code."""
    cli.run(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int | None:
    """Run a verb; return its exit code.

    Raises:
        UsageError: there is no such verb, or the libraries that it needs are not installed.
    """
    name, *rest = arguments or ["--help"]
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name in ("-V", "--version"):
        print(f"galen {__version__}")
        return 0
    verbs = {verb: (stage, command) for stage in STAGES for verb, command in stage.verbs.items()}
    if name not in verbs:
        raise UsageError(f"unknown verb {name!r}; {did_you_mean(name, verbs)}")
    stage, command = verbs[name]
    sys.argv = [f"galen {name}", *rest]
    return _run(stage, command, rest)


def help_text() -> str:
    """Return the help of all verbs, by stage."""
    width = max(len(verb) for stage in STAGES for verb in stage.verbs)
    lines = [_USAGE, "", _DESCRIPTION]
    for stage in STAGES:
        lines += ["", f"{stage.title}:"]
        lines += [f"  {name:<{width}}  {verb.summary}" for name, verb in stage.verbs.items()]
    lines += ["", "options:", "  --version  print the version", "  --help     print this help"]
    return "\n".join(lines)


def _run(stage: Stage, verb: Verb, arguments: Sequence[str]) -> int | None:
    try:
        code: int | None = importlib.import_module(verb.module).main(list(arguments))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in log.PACKAGES:
            raise
        raise UsageError(
            f"the library {error.name.partition('.')[0]} is not installed; {install(stage.extra)}"
        ) from error
    return code
