"""The reference pages: options and recipe keys of all commands, read from the code.

MkDocs calls `on_page_markdown` for every page; the markers `<!-- commands -->` and
`<!-- recipes -->` are replaced.
"""

import argparse
import importlib
import re
import sys
from typing import Any
from unittest import mock

from galen.commands import STAGES


class _Parsed(Exception):
    """Carries the parser of a command that would now parse its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page."""
    for marker, generate in (("<!-- commands -->", commands), ("<!-- recipes -->", recipes)):
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    return markdown


def commands() -> str:
    """Return a section per command with a table of its options."""
    lines = []
    for stage in STAGES:
        lines += [f"## {stage.title}", ""]
        for verb, command in stage.verbs.items():
            parser = parser_of(command.module)
            path = f"`python -m {command.module}`"
            lines += [f"### galen {verb}", "", f"{_sentence(command.summary)}. Also {path}.", ""]
            lines += ["| option | default | meaning |", "|---|---|---|"]
            lines += [_row(action) for action in parser._actions if _is_shown(action)]
            lines.append("")
    return "\n".join(lines)


def recipes() -> str:
    """Return a section per command that takes a recipe, with the recipe's keys."""
    lines = []
    for stage in STAGES:
        for verb, command in stage.verbs.items():
            keys = parser_of(command.module).epilog or ""
            if keys.startswith("keys of the recipe:") and verb not in ("plan", "should-restart"):
                _, _, text = keys.partition("\n")
                lines += [f"## galen {verb}", "", "```text", text, "```", ""]
    return "\n".join(lines)


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parsed(parser)

    names = ("parse_args", "parse_known_args", "parse_intermixed_args")
    patched = dict.fromkeys(names, stop)
    with mock.patch.multiple(argparse.ArgumentParser, **patched), mock.patch.object(sys, "argv"):
        try:
            importlib.import_module(module).main(["--help"])
        except _Parsed as found:
            return found.parser
    raise AssertionError(f"{module} parses no arguments")


def _is_shown(action: argparse.Action) -> bool:
    common = {"--help", "--log-level"}
    return action.help != argparse.SUPPRESS and not common.intersection(action.option_strings)


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or _choices(action) or action.dest.upper()}"
    meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    default = "required" if action.required else ""
    if bracketed := re.search(r" *\[([^\[\]]+)\]$", meaning):
        default = bracketed[1]
        meaning = meaning[: bracketed.start()]
    elif not action.required and action.default not in (None, False, [], "", argparse.SUPPRESS):
        default = str(action.default)
    return " | ".join(("", f"`{_cell(name)}`", _cell(default), _cell(meaning), "")).strip()


def _choices(action: argparse.Action) -> str:
    return "|".join(map(str, action.choices or ()))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
