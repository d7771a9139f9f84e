"""Tasks of the installed lm-evaluation-harness, by its own task files, over records of a test."""

import contextlib
import functools
import json
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
    "mmlu_flan_cot_zeroshot_anatomy": "mmlu/flan_cot_zeroshot",
    "headqa_en": "headqa",
    "headqa_es": "headqa",
    "truthfulqa_mc1": "truthfulqa",
}
"""Task to its folder of `lm_eval/tasks`; reading them all takes ten seconds."""
TASKS = Path(lm_eval.tasks.__file__).parent
TEXTS = [
    " outer blanks ",
    "a meritocracy. ",
    "Na⁺/K⁺-ATPase",
    "{{ question }}",
    "7",
    "two\nlines",
    "línea\u00a0única",
    "'quoted' \"twice\" \\n",
    "次のうち",
    "it's; a, b",
]
"""Options and questions with what templates, parsers and tokenizers get wrong."""


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


def texts(number, count):
    return [TEXTS[(number * 3 + index) % len(TEXTS)] for index in range(count)]


def question(number):
    return f"{TEXTS[number % len(TEXTS)]} Which of these, {number}?"


def medqa(number):
    options = dict(zip("ABCD", texts(number, 4), strict=True))
    ours = {"question": question(number), "options": options, "answer_idx": "ABCD"[number % 4]}
    theirs = {"sent1": question(number), "sent2": "", "label": number % 4}
    return ours, theirs | {f"ending{i}": text for i, text in enumerate(options.values())}


def medmcqa(number):
    record = dict(zip(("opa", "opb", "opc", "opd"), texts(number, 4), strict=True))
    record |= {"id": f"m{number}", "question": question(number)}
    return record | {"cop": number % 4 + 1}, record | {"cop": number % 4}


def pubmedqa(number):
    record = {"QUESTION": question(number), "CONTEXTS": texts(number, 3)}
    record |= {"final_decision": ("yes", "no", "maybe")[number % 3], "LONG_ANSWER": "long"}
    return record | {"pubid": number}, record


def mmlu(number, subject="anatomy"):
    record = {"question": f" {question(number)}\n", "subject": subject}
    record |= {"choices": texts(number, 4), "answer": number % 4}
    return record, record


def us_foreign_policy(number):
    return mmlu(number, "us_foreign_policy")


def headqa(number):
    answers = [{"aid": i, "atext": text.strip()} for i, text in enumerate(texts(number, 5), 1)]
    record = {"name": f"exam {number}", "qid": number, "qtext": question(number).strip()}
    record |= {"ra": number % 5 + 1, "answers": answers, "category": "biology"}
    return record, record


def truthfulqa(number):
    choices = [*texts(number, 3 + number % 4), ""][: 3 + number % 5]
    record = {"question": question(number)}
    record["mc1_targets"] = {"choices": choices, "labels": [1] + [0] * (len(choices) - 1)}
    return record, record


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
