"""The reference pages: options, recipe keys, steps, readers, tasks, read from the code.

MkDocs calls `on_page_markdown` for every page; markers such as `<!-- commands -->` are replaced by
what the function of that name returns.
"""

import argparse
import contextlib
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from galen import recipe_help
from galen.commands import STAGES

# keys of a task that name files
_TASK_FILES = ("file", "documents", "ids", "fewshot_source", "fewshot_examples")


class _Parsed(Exception):
    """Carries the parser of a command that would now parse its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page."""
    for generate in (commands, recipes, steps, readers, tasks, task_keys, protocols):
        marker = f"<!-- {generate.__name__} -->"
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


def steps() -> str:
    """Return a section per step of a corpus recipe, with its settings."""
    from data_prep.curation.registry import STEPS

    lines = []
    for name, step in STEPS.items():
        lines += [f"## {name}", "", _first_paragraph(step.Settings.__doc__), ""]
        lines += _fields_table(step.Settings, without=("step", "sources"))
    return "\n".join(lines)


def readers() -> str:
    """Return the options of all readers, and a section per reader with its own."""
    from data_prep.readers import READERS
    from data_prep.readers.common_options import ReaderOptions

    lines = ["## All readers", "", *_fields_table(ReaderOptions)]
    common = tuple(field.name for field in dataclasses.fields(ReaderOptions))
    for name, reader in READERS.items():
        endings = ", ".join(f"`{ending}`" for ending in reader.endings)
        lines += [f"## {name}", "", _first_paragraph(reader.__doc__), "", f"Files: {endings}.", ""]
        lines += _fields_table(reader.Options, without=common)
    return "\n".join(lines)


def tasks() -> str:
    """Return a table of the built-in tasks: the comment at the head of each file, and its data."""
    from evaluation.tasks import task

    lines = ["| task | content | files below `--data` |", "|---|---|---|"]
    for path in sorted(Path(task.BUILT_IN).glob("*.yaml")):
        yaml_text = path.read_text(encoding="utf-8")
        comment = re.match(r"(?:#.*\n)*", yaml_text)
        text = " ".join(line.strip("# ") for line in (comment[0] if comment else "").splitlines())
        keys = yaml.safe_load(yaml_text)
        files = [keys[key] for key in _TASK_FILES if key in keys]
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(files))
        lines.append(f"| `{path.stem}` | {_cell(text)} | {names} |")
    return "\n".join(lines)


def task_keys() -> str:
    """Return the keys of a task file, and of its sections."""
    from evaluation.prompts.reference_prompt import ReferencePrompt
    from evaluation.prompts.task_prompt import TaskPrompt
    from evaluation.question_sets.fields import Fields, ReferenceFields
    from evaluation.tasks.generation import GenerationTask, Tolerance
    from evaluation.tasks.rubric import LengthAdjustment, RubricTask
    from evaluation.tasks.task import LmEvalTask, MultipleChoiceTask, PerplexityTask

    lines = ["### multiple_choice", "", *_fields_table(MultipleChoiceTask, ("fields", "prompt"))]
    lines += ["### fields", "", *_fields_table(Fields)]
    lines += ["### prompt", "", *_fields_table(TaskPrompt)]
    sections = ("fields", "prompt", "tolerance")
    lines += ["### generation", "", *_fields_table(GenerationTask, sections)]
    lines += ["### fields of generation", "", *_fields_table(ReferenceFields)]
    lines += ["### prompt of generation", "", *_fields_table(ReferencePrompt)]
    lines += ["### tolerance", "", *_fields_table(Tolerance)]
    lines += ["### rubric", "", *_fields_table(RubricTask, ("length_adjustment",))]
    lines += ["### length_adjustment", "", *_fields_table(LengthAdjustment)]
    lines += ["### perplexity", "", *_fields_table(PerplexityTask)]
    lines += ["### lm_eval", "", *_fields_table(LmEvalTask)]
    return "\n".join(lines)


def protocols() -> str:
    """Return a table of the protocols with their settings, where one has another than usual."""
    from evaluation.protocols.protocol import Protocol
    from evaluation.protocols.registry import PROTOCOLS

    usual = Protocol("")
    names = [
        field.name
        for field in dataclasses.fields(Protocol)
        if any(
            getattr(item, field.name) != getattr(usual, field.name) for item in PROTOCOLS.values()
        )
    ]
    lines = [f"| protocol | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, protocol in PROTOCOLS.items():
        cells = [_value(getattr(protocol, key), getattr(usual, key)) for key in names]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _value(value: Any, usual: Any) -> str:
    """Return a setting of a protocol for a cell; the usual one is empty."""
    if value == usual:
        return ""
    if value is None:
        return "the model's"
    if isinstance(value, tuple):
        return ", ".join(_cell(f"`{item}`") for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _fields_table(section: type, without: Iterable[str] = ()) -> list[str]:
    """Return a table of a recipe section's keys, or nothing if there are none."""
    fields = [line for line in recipe_help.describe(section, 0).splitlines() if line]
    rows = []
    for line in fields:
        found = re.match(r"(\w+)(?: \[(.*?)\])?:? +(.*)$", line)
        if found is None or found[1] in without:
            continue
        name, default, meaning = found.groups()
        rows.append(f"| `{name}` | {_cell(_default(default))} | {_cell(meaning)} |")
    if not rows:
        return []
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""]


def _default(default: str | None) -> str:
    if default in (None, "null", '""'):
        return ""
    return default if default == "required" else f"`{default}`"


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parsed(parser)

    with contextlib.ExitStack() as patches:
        for name in ("parse_args", "parse_known_args", "parse_intermixed_args"):
            patches.enter_context(mock.patch.object(argparse.ArgumentParser, name, stop))
        patches.enter_context(mock.patch.object(sys, "argv", [module]))
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
    return " | ".join(("", _cell(f"`{name}`"), _cell(default), _cell(meaning), "")).strip()


def _choices(action: argparse.Action) -> str:
    return "|".join(map(str, action.choices or ()))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _cell(text: str) -> str:
    """Return text on one line, without what ends a cell or begins an HTML tag."""
    parts = " ".join(text.replace("|", "\\|").split()).split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]  # outside of code
    return "`".join(parts)
