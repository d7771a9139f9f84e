"""All types of tasks by the `kind` of a task file."""

from typing import Any

from evaluation.scoring.generation_task import Generation
from evaluation.scoring.harness_task import HarnessTask
from evaluation.scoring.multiple_choice import MultipleChoice
from evaluation.scoring.perplexity import Perplexity
from evaluation.scoring.rubric_task import Rubric
from evaluation.scoring.task_type import TaskType
from evaluation.tasks.task import Task

TASK_TYPES: dict[str, TaskType[Any]] = {
    task_type.name: task_type
    for task_type in (MultipleChoice(), Generation(), Rubric(), Perplexity(), HarnessTask())
}
"""Name to type of task."""


def of(task: Task) -> TaskType[Any]:
    """Return the type of a task."""
    return TASK_TYPES[task.kind]
