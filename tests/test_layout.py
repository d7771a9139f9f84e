"""Where files belong and what may import what, read from the code.

Imports inside functions and for type checkers count, too.
"""

import ast
import graphlib
import re
import sys
from functools import cache

import pytest

from tests.conftest import ROOT

ROOMS = ("galen", "data_prep", "megatron_ext", "checkpoints_convert", "evaluation", "finetune")
"""From the lowest to the highest: a room imports itself and those before it."""


@cache
def trees():
    """Every module of the rooms by its dotted name, as a syntax tree.

    A package has the name of its folder.
    """
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports():
    """What each module imports of the rooms.

    Of a package it is the content of its `__init__`, not the modules in it.
    """
    return {
        module: {name for node in ast.walk(tree) for name in imported(node)} - {module}
        for module, tree in trees().items()
    }


def imported(node):
    """Return the modules of the rooms that a node of a syntax tree imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in trees()]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        names = [name.value for name in node.args[:1] if isinstance(name, ast.Constant)]
        return [name for name in names if name in trees()]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, "imports name the whole path"
    names = (f"{node.module}.{alias.name}" for alias in node.names)
    return [
        name
        for name in (name if name in trees() else node.module for name in names)
        if name in trees()
    ]


def is_command(module):
    """Say whether a module stands at its room's root and can be started."""
    return module.count(".") == 1 and any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in trees()[module].body
    )


def circle(arrows):
    """Return a circle of a graph, or none."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS[1:])  # galen is what all share, and has no commands
def test_a_rooms_root_holds_its_commands_and_nothing_else(room):
    at_root = [
        path
        for path in (ROOT / room).iterdir()
        if path.is_file() and path.name not in ("__init__.py", "py.typed")
    ]
    assert at_root
    assert [
        path.name
        for path in at_root
        if path.suffix != ".py" or not is_command(f"{room}.{path.stem}")
    ] == []


def test_every_folder_with_code_is_a_package():
    assert {module.rpartition(".")[0] for module in trees()} - {""} <= trees().keys()


def test_no_folder_has_the_name_of_a_module_of_python():
    folders = {module.rpartition(".")[0].rpartition(".")[2] for module in trees()}
    assert folders & sys.stdlib_module_names == set()


def test_no_room_imports_tests_benchmarks_or_examples():
    assert [
        (module, ast.unparse(node))
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and re.match(r"(from|import) (tests|benchmarks|examples)\b", ast.unparse(node))
    ] == []


def test_no_circle_of_modules():
    assert circle(imports()) == []


@pytest.mark.parametrize("room", ROOMS[1:])
def test_no_circle_of_sub_rooms(room):
    arrows = {}
    for module, names in imports().items():
        here = module.split(".")[:2]
        arrows.setdefault(".".join(here), set()).update(
            ".".join(there)
            for there in (name.split(".")[:2] for name in names)
            if there != here and there[0] == here[0] == room
        )
    assert circle(arrows) == []


def test_nothing_imports_a_command():
    assert {
        (module, name) for module, names in imports().items() for name in names if is_command(name)
    } == set()


def test_no_room_imports_a_higher_one():
    rank = ROOMS.index
    assert {
        (module, name)
        for module, names in imports().items()
        for name in names
        if rank(name.split(".")[0]) > rank(module.split(".")[0])
    } == set()
