"""The `galen` command: one verb for each command of the rooms."""

import sys
from collections.abc import Sequence

from galen import __version__, cli
from galen.commands import STAGES, call

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
    sys.argv = [f"galen {name}", *rest]
    return call(name, rest)


def help_text() -> str:
    """Return the help of all verbs, by stage."""
    width = max(len(verb) for stage in STAGES for verb in stage.verbs)
    lines = [_USAGE, "", _DESCRIPTION]
    for stage in STAGES:
        lines += ["", f"{stage.title}:"]
        lines += [f"  {name:<{width}}  {verb.summary}" for name, verb in stage.verbs.items()]
    lines += ["", "options:", "  --version  print the version", "  --help     print this help"]
    return "\n".join(lines)
