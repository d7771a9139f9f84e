"""What a task sets of a protocol: wording, few-shot rule, metric.

Protocols whose template has `follows_task` leave these to the task, as lm-evaluation-harness does;
others have their own for all tasks.
"""

import dataclasses
from typing import Any

from evaluation.prompts.registry import get_template
from evaluation.prompts.template import PromptTemplate
from evaluation.protocols.protocol import Protocol
from evaluation.tasks.task import MultipleChoiceTask
from galen import recipe

_KEYS = ("prompt", "num_fewshot", "fewshot_sampler", "metric")
"""Keys of a task that set something of the protocol."""


def template(task: MultipleChoiceTask, protocol: Protocol) -> PromptTemplate:
    """Return the prompt template of a task."""
    published = get_template(protocol.template)
    if task.prompt is None or not published.follows_task:
        return published
    return task.prompt.template()


def settings(task: MultipleChoiceTask, protocol: Protocol) -> Protocol:
    """Return the protocol with the task's number of few-shot examples and metric."""
    if not get_template(protocol.template).follows_task:
        return protocol
    if task.num_fewshot is not None:
        protocol = dataclasses.replace(protocol, num_fewshot=task.num_fewshot)
    if task.metric is not None:
        protocol = dataclasses.replace(protocol, metric=task.metric)
    return protocol


def takes_first(task: MultipleChoiceTask, protocol: Protocol) -> bool:
    """Return whether few-shot examples are the first ones of their file, or of their subject."""
    follows = get_template(protocol.template).follows_task
    if follows and task.fewshot_sampler is not None:
        return task.fewshot_sampler == "first_n"
    return by_subject(task, protocol)


def by_subject(task: MultipleChoiceTask, protocol: Protocol) -> bool:
    """Return whether few-shot examples are those of the question's own subject."""
    if not get_template(protocol.template).few_shot_by_subject:
        return False
    if task.fewshot_by_subject is None:
        return task.layout().few_shot_by_subject
    return task.fewshot_by_subject


def used_keys(task: MultipleChoiceTask, protocol: Protocol) -> dict[str, Any]:
    """Return the keys of a task that set something of the protocol, with their values."""
    ignored = ignored_keys(task, protocol)
    values = recipe.to_dict(task)
    keys = [key for key in (*_KEYS, "fewshot_by_subject") if key not in ignored]
    return {key: values[key] for key in keys if values[key] is not None}


def ignored_keys(task: MultipleChoiceTask, protocol: Protocol) -> list[str]:
    """Return the keys of a task that a protocol does not use."""
    published = get_template(protocol.template)
    keys = [] if published.follows_task else list(_KEYS)
    if not published.few_shot_by_subject:
        keys.append("fewshot_by_subject")
    return [key for key in keys if getattr(task, key) is not None]
