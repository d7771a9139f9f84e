"""External YAML as plain data, bounded in size, depth and aliases.

Every mistake is one message with file and line.

An alias counts as its expansion, so that a few hundred bytes that expand to billions of values are
refused before anything is built from them. `no`, `yes`, `on`, `off` are text, as in YAML 1.2: a
list of languages may hold `no`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from galen import shipped
from galen.errors import UsageError, one_line

MAX_BYTES = 16 * 2**20
MAX_NODES = 50_000
"""Keys and values of a document, with all aliases expanded."""
MAX_DEPTH = 64
MAX_DIGITS = 400
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that YAML can escape, but that no file name or UTF-8 text can hold."""

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """A loader of plain data that stops at `MAX_NODES` nodes and at `MAX_DEPTH` levels."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise _too_large(yaml.parser.Parser.peek_event(self))
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """Return the mapping in a YAML file, and the line number of each key in it.

    Raises:
        UsageError: the file cannot be read, is not a mapping, or is too large, too deep or wrong
            YAML.
    """
    try:
        with shipped.resolve(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES:,} bytes: this is not a recipe")
    tree, keys = _load(text, str(path))
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise UsageError(
            f"{path}: a recipe is a mapping of keys to values, this is a {type(tree).__name__}"
        )
    lines: dict[Location, int] = {}
    for key, line in keys:
        if key in lines:  # YAML would silently forget the first
            name = ".".join(map(str, key))
            raise UsageError(
                f"{path}, line {line}: {name!r} is given twice, first in line {lines[key]}"
            )
        lines[key] = line
    return tree, lines


def value(text: str, where: str) -> Any:
    """Return the value that a text is in YAML, as on a command line.

    Raises:
        UsageError: it is too large, too deep or wrong YAML; `where` tells of what.
    """
    return _load(text, where, lines=False)[0]


def _load(text: str, where: str, lines: bool = True) -> tuple[Any, list[tuple[Location, int]]]:
    """Return a document's content, and its keys with their lines.

    Messages name the line where there are `lines`.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, []
        _check_aliases(root, {})
        _check_values(root, set())
        keys = list(_key_lines(root, ()))  # before merges are carried out in the nodes
        return _without_sharing(loader.construct_document(root)), keys
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and lines else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise UsageError(f"{where}{line}: not valid YAML: {problem}") from None
    # `!!int x`, 2024-13-45 …
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"{where}: not valid YAML: {one_line(error)}") from None


def _without_sharing(content: Any) -> Any:
    """Return content in which each alias is a copy, so that an override changes one place."""
    if isinstance(content, dict):
        return {key: _without_sharing(item) for key, item in content.items()}
    if isinstance(content, list):
        return [_without_sharing(item) for item in content]
    return content


def _check_aliases(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many nodes a node expands to, its aliases followed.

    `sizes` has those of the nodes that are known.

    Raises:
        yaml.YAMLError: it is more than `MAX_NODES`, or a node holds itself.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _wrong("an alias refers to the node that contains it", node)
        return sizes[id(node)]
    sizes[id(node)] = 0  # not known yet: met again below itself
    size = 1 + sum(_check_aliases(child, sizes) for child in _children(node))
    if size > MAX_NODES:
        raise _too_large(node)
    sizes[id(node)] = size
    return size


def _check_values(node: yaml.Node, seen: set[int]) -> None:
    """Make keys text, each a single value; check that texts and numbers are sane."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a key must be a single value", key)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
    if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
        raise _wrong("a text holds a null character or half of a character (\\ud800)", node)
    number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if number and len(node.value) > MAX_DIGITS:
        raise _wrong(f"a number has more than {MAX_DIGITS} digits", node)
    for child in _children(node):
        _check_values(child, seen)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value_ in node.value:
            yield key
            yield value_
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _key_lines(node: yaml.Node, prefix: Location) -> Iterator[tuple[Location, int]]:
    """Yield the location and line of each key and each item."""
    if isinstance(node, yaml.MappingNode):
        for key, value_ in node.value:
            yield (*prefix, key.value), key.start_mark.line + 1
            yield from _key_lines(value_, (*prefix, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value_ in enumerate(node.value):
            yield (*prefix, index), value_.start_mark.line + 1
            yield from _key_lines(value_, (*prefix, index))


def _too_large(node: Any) -> yaml.YAMLError:
    return _wrong(
        f"it expands to more than {MAX_NODES:,} values, or more than {MAX_DEPTH} levels", node
    )


def _wrong(problem: str, node: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, node.start_mark)
