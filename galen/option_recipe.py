"""Commands whose options may also stand in a YAML recipe, so that one file reproduces a result.

    galen import RECIPE.yaml [key=value …] [--option value …]

A key is the long name of an option: `hf`, `add_special_tokens`. An override replaces a key of the
recipe, and an option on the command line replaces both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from galen import option_origins
from galen.cli import ArgumentParser
from galen.errors import UsageError, did_you_mean

_HELP = (
    "first of all, options from a YAML file by their long names (output: DIR), and values that"
    " replace them; options on the command line replace both"
)


_TEXT = (None, str, Path)


class OptionParser(ArgumentParser):
    """Parser of `[RECIPE.yaml [key=value …]] [--option value …]`."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        self._keys: dict[str, argparse.Action] = {}
        self._origins: dict[str, str] = {}
        super().__init__(description, **options)
        self.add_argument("recipe", nargs="*", metavar="RECIPE.yaml key=value", help=_HELP)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument; each option is a key of recipes."""
        action = super().add_argument(*names, **settings)
        if action.option_strings and action.dest not in ("help", "log_level"):
            self._keys[action.dest] = action
        return action

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Return the options of the recipe, its overrides and the command line.

        Raises:
            UsageError: the recipe cannot be read, or a key is unknown; names file and line.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        count = start = _log_level_words(words)
        while count < len(words) and not words[count].startswith("-"):
            count += 1
        options = self._from_recipe(words[start:count]) if count > start else {}
        for word in words[count:]:
            self._forget(word, options)
        from_recipe = [option for key in options for option in options[key]]
        arguments = self.parse_args([*words[:start], *from_recipe, *words[count:]])
        if arguments.recipe:
            self.error(f"{arguments.recipe[0]!r}: a recipe and key=value come before the options")
        del arguments.recipe
        return arguments

    def error(self, message: str) -> NoReturn:
        """Refuse the options; names the key and its origin where one comes from the recipe.

        Raises:
            UsageError: always.
        """
        if option_origins.with_keys(message, self._origins) == message:
            super().error(message)
        with option_origins.name_keys(self._origins):
            raise UsageError(message.removeprefix("argument ")) from None

    def _is_text(self, key: str) -> bool:
        action = self._keys.get(key)
        return action is not None and action.nargs is None and action.type in _TEXT

    def _required(self) -> str:
        """Return the required options as in a usage line, for the end of a message."""
        actions = [action for action in self._keys.values() if action.required]
        options = [f"{_flag(action.dest)} {action.metavar or '…'}" for action in actions]
        return f": {' '.join(options)}" if options else ""

    def _forget(self, word: str, options: dict[str, list[str]]) -> None:
        """Forget the recipe's value of an option that a word of the command line replaces."""
        flag = word.partition("=")[0]
        if len(flag) > 2 and flag.startswith("--"):
            for key in list(self._origins):
                if _flag(key) == flag:
                    del self._origins[key]
                    options.pop(key, None)

    def _from_recipe(self, words: Sequence[str]) -> dict[str, list[str]]:
        """Return the words of the command line for each key of a recipe and its overrides."""
        from galen import yaml_text

        if not words[0].endswith((".yaml", ".yml")):
            self.error(f"{words[0]!r}: expected a recipe (….yaml) or options{self._required()}")
        path = Path(words[0])
        tree, lines = yaml_text.read(path)
        # a key that a merge (`<<`) brings in has no line of its own
        merge_line = lines.get(("<<",), 1)
        origins = {key: f"{path}, line {lines.get((key,), merge_line)}" for key in tree}
        for word in words[1:]:
            key, separator, text = word.partition("=")
            origins[key] = f"override {word!r}"
            if not separator:
                raise UsageError(f"override {word!r}: write key=value, for example output=DIR")
            value = yaml_text.value(text, origins[key])
            # not YAML's reading of a name such as 010 or 12:30
            tree[key] = text if self._is_text(key) and not _is_structure(value) else value
        options = {}
        for key, value in tree.items():
            if key not in self._keys:
                hint = did_you_mean(str(key), sorted(self._keys))
                raise UsageError(f"{origins[key]}: unknown key {key!r}; {hint}")
            options[key] = _option(self._keys[key], value, f"{origins[key]}: {key}")
        self._origins = {key: origins.get(key, str(path)) for key in self._keys}
        return options


def _log_level_words(words: Sequence[str]) -> int:
    """Return how many words `--log-level` takes up before everything else."""
    if words and words[0] == "--log-level":
        return min(2, len(words))
    return int(bool(words) and words[0].startswith("--log-level="))


def _is_structure(value: Any) -> bool:
    """Return whether a value is none, a flag, a list or a section: no text in any reading."""
    return value is None or isinstance(value, bool | list | dict)


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _option(action: argparse.Action, value: Any, where: str) -> list[str]:
    """Return the command line's words for a key: none for null, and for a flag that is false.

    Raises:
        UsageError: the value is a list or a section, or no value of this option.
    """
    name = _flag(action.dest)
    if value is None:
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false")
        return [name] if value else []
    if isinstance(value, list | dict | bool):
        raise UsageError(f"{where} must be one value")
    if action.type in _TEXT and not isinstance(value, str):
        # YAML reads 010 as 8 and 12:30 as 750
        raise UsageError(f"{where} must be text: write it in quotes")
    return [f"{name}={value}"]
