"""Tasks of the installed lm-evaluation-harness, by its own task files, over records of a test."""

import contextlib
import functools
import unittest.mock
from pathlib import Path

import datasets
import lm_eval.tasks
from lm_eval.api.samplers import FirstNSampler
from lm_eval.tasks import TaskManager

FOLDERS = {
    "medqa_4options": "medqa",
    "medmcqa": "medmcqa",
    "pubmedqa": "pubmedqa",
    "mmlu_anatomy": "mmlu/default",
    "mmlu_us_foreign_policy": "mmlu/default",
    "mmlu_anatomy_continuation": "mmlu/continuation",
    "mmlu_us_foreign_policy_continuation": "mmlu/continuation",
    "headqa_en": "headqa",
    "headqa_es": "headqa",
    "truthfulqa_mc1": "truthfulqa",
}
"""Task to its folder of `lm_eval/tasks`; reading them all takes ten seconds."""
TASKS = Path(lm_eval.tasks.__file__).parent


@functools.cache
def manager(name):
    """Return the harness' task manager for one task."""
    return TaskManager(include_path=str(TASKS / FOLDERS[name]), include_defaults=False)


@contextlib.contextmanager
def records(splits):
    """Let the harness' tasks have these records: split to list of records."""
    local = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    )
    with unittest.mock.patch.object(datasets, "load_dataset", lambda *_, **__: local):
        yield


def load(name, splits, num_fewshot=0):
    """Return a task with the prompts that the harness builds from its own files.

    The first documents of the training split are the few-shot examples: the harness draws others
    for each document from a stream of random numbers, unless the task says `first_n` itself.
    """
    with records(splits):
        [task] = manager(name).load([name])["tasks"].values()
    task.set_config("num_fewshot", num_fewshot)
    if task.fewshot_docs() is not None:
        task.sampler = FirstNSampler(list(task.fewshot_docs()))
    task.build_all_requests()
    return task


def prompts(task):
    """Return the prompt and the continuations of each document."""
    found = {}
    for instance in task.instances:
        context, continuation = instance.args
        found.setdefault(instance.doc_id, (context, []))[1].append(continuation)
    return [found[doc_id] for doc_id in sorted(found)]
