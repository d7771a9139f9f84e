"""The tasks, groups and tags that the installed lm-evaluation-harness defines.

`lm_eval` is imported where it is used: it is optional, and takes seconds to import.
"""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.tasks.task import LmEvalTask
from galen.errors import UsageError, did_you_mean, install


def expand(task: LmEvalTask) -> list[str]:
    """Return the names that a name stands for.

    A task or a group with an aggregate is one benchmark. A tag, and a group without an aggregate,
    is a list of them.

    Raises:
        UsageError: the harness is not installed, or has no such task.
    """
    known = manager(task.include_path)
    check_name(task.task, known)
    return list(dict.fromkeys(_members(known.task_index, task.task)))


def _members(index: Any, name: str) -> Iterator[str]:
    entry = index[name]
    members: list[Any] = []
    if entry.kind.name == "TAG":
        members = sorted(entry.tags)
    elif entry.kind.name == "GROUP" and not entry.cfg.get("aggregate_metric_list"):
        members = entry.cfg.get("task") or []
    # tasks that a group defines in place, or changes, are known only in it
    if not members or not all(isinstance(member, str) and member in index for member in members):
        yield name
        return
    for member in members:
        yield from _members(index, member)


def leaves(index: Any, name: str) -> Iterator[str]:
    """Yield the tasks of a group or tag, or the task itself."""
    entry = index[name]
    members: list[Any] = sorted(entry.tags) if entry.kind.name == "TAG" else []
    if entry.kind.name == "GROUP":
        members = entry.cfg.get("task") or []
    elif not members:
        yield name
    for member in members:
        of_member = member if isinstance(member, str) else member.get("group", member.get("task"))
        # what a group defines in place is in no index
        if isinstance(of_member, str) and of_member in index:
            yield from leaves(index, of_member)


def own_code(index: Any, task: LmEvalTask) -> list[Path]:
    """Return the Python files beside the user's own task files, which decide scores, too."""
    if task.include_path is None:
        return []
    root = Path(task.include_path).resolve()
    paths = [index[leaf].yaml_path for leaf in leaves(index, task.task)]
    folders = {path.resolve().parent for path in paths if path is not None}
    own = sorted(folder for folder in folders if folder.is_relative_to(root))
    return [path for folder in own for path in sorted(folder.glob("*.py"))]


def version() -> str:
    """Return the version of the harness."""
    return importlib.metadata.version("lm_eval")


@functools.lru_cache(maxsize=4)
def manager(include_path: str | None) -> Any:
    """Return the index of all tasks.

    Raises:
        UsageError: the harness is not installed, or the folder of further tasks is missing.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError(
            f"tasks lm_eval:… need lm-evaluation-harness, which is not installed;"
            f" {install('harness')}"
        )
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(f"--lm-eval-include-path: there is no folder {include_path}")
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def check_name(name: str, known: Any) -> None:
    """Check that a name is that of a task, group or tag.

    Raises:
        UsageError: it is not.
    """
    if name not in known.task_index:
        hint = "see `lm-eval ls tasks`"
        meant = did_you_mean(name, known.all_tasks)
        if meant.startswith("did you mean"):
            hint = f"{meant} {hint}"
        raise UsageError(f"lm-evaluation-harness {version()} has no task {name!r}; {hint}")
