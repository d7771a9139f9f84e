"""The tasks that a recipe names, with the recipe's overrides."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evaluation.harness import task_index
from evaluation.scoring.recipe import Recipe, protocol_generates
from evaluation.tasks import task
from evaluation.tasks.generation import GenerationTask
from evaluation.tasks.rubric import RubricTask
from evaluation.tasks.task import LmEvalTask, MultipleChoiceTask, Task
from galen.errors import MissingInputError, UsageError

logger = logging.getLogger(__name__)

_NOT_HARNESS = (
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "num_samples",
    "answer_format",
    "guided_decoding",
    "thinking_budget",
    "budget_forcing",
)
"""Keys without effect on tasks of lm-evaluation-harness."""


def select(options: Recipe) -> dict[str, Task]:
    """Return the tasks by name; commas in a name separate several.

    The recipe's few-shot examples and their number override those of each task.

    Raises:
        UsageError: a task is unknown or named twice, or an option does not fit it.
    """
    tasks: dict[str, Task] = {}
    names = [name.strip() for name in ",".join(options.tasks).split(",")]
    references = filter(None, names)
    for name, specification in itertools.chain.from_iterable(
        _named(reference, options) for reference in references
    ):
        if name in tasks:
            raise UsageError(f"--tasks names {name!r} twice")
        tasks[name] = specification
    _check_options(options, tasks)
    return tasks


def _check_options(options: Recipe, tasks: dict[str, Task]) -> None:
    if options.fewshot_examples is not None and not options.fewshot_examples.is_file():
        raise MissingInputError(f"--fewshot-examples: there is no file {options.fewshot_examples}")
    if not tasks:
        raise UsageError("--tasks names no task")
    generate = any(
        isinstance(item, LmEvalTask | GenerationTask | RubricTask) for item in tasks.values()
    )
    if options.max_new_tokens is not None and not generate and not protocol_generates(options):
        raise UsageError(
            f"--max-new-tokens is for answers that are generated; those to {', '.join(tasks)} under"
            f" {options.protocol} are not"
        )
    of_harness = [name for name, item in tasks.items() if isinstance(item, LmEvalTask)]
    if not of_harness:
        for key in ("lm_eval_include_path", "lm_eval_gen_kwargs"):
            if getattr(options, key) is not None:
                option = key.replace("_", "-")
                raise UsageError(f"--{option} goes with tasks named lm_eval:NAME")
        return
    _check_ignored_options(options, of_harness, len(of_harness) == len(tasks))
    if len(options.fewshot_seeds or []) > 1:
        raise UsageError(f"{of_harness[0]} takes one seed of few-shot examples")
    if options.fewshot_examples is not None:
        logger.warning(
            f"{', '.join(of_harness)}: --fewshot-examples is ignored; the harness selects them"
        )


def _check_ignored_options(options: Recipe, of_harness: list[str], are_all: bool) -> None:
    """Check that no option is given that tasks of the harness ignore.

    Raises:
        UsageError: one is, and all tasks are of the harness; beside others, it is logged.
    """
    given = [key for key in _NOT_HARNESS if getattr(options, key) not in (None, False)]
    if not given:
        return
    names = ", ".join(f"--{key.replace('_', '-')}" for key in given)
    hint = "sampling is set by --lm-eval-gen-kwargs, such as do_sample=true,temperature=0.7"
    if are_all:
        raise UsageError(f"{names}: no effect on tasks of lm-evaluation-harness; {hint}")
    logger.warning(f"{', '.join(of_harness)}: {names} have no effect on these tasks; {hint}")


def _named(reference: str, options: Recipe) -> Iterator[tuple[str, Task]]:
    """Yield the tasks that a name or a path stands for."""
    name, specification = task.load(reference)
    if isinstance(specification, LmEvalTask):
        overridden = _overridden_harness(specification, options)
        if not reference.startswith(task.LM_EVAL):
            yield name, overridden
            return
        for member in task_index.expand(overridden):
            yield f"{task.LM_EVAL}{member}", replace(overridden, task=member)
    elif isinstance(specification, MultipleChoiceTask):
        yield name, _overridden(specification, options.fewshot_examples, options.num_fewshot)
    elif isinstance(specification, GenerationTask):
        yield name, _overridden_generation(name, specification, options)
    elif isinstance(specification, RubricTask) and options.max_new_tokens is not None:
        yield name, replace(specification, max_new_tokens=options.max_new_tokens)
    else:
        yield name, specification


def _overridden_generation(
    name: str, specification: GenerationTask, options: Recipe
) -> GenerationTask:
    """Return a task of generated answers with the recipe's few-shot examples and length.

    Raises:
        UsageError: it has no file of few-shot examples.
    """
    if options.fewshot_examples is not None:
        logger.warning(f"{name}: --fewshot-examples is ignored; the task's own are shown")
    if options.num_fewshot is not None:
        if options.num_fewshot and specification.fewshot_file is None:
            raise UsageError(
                f"task {name}: --num-fewshot needs the key 'fewshot_source' or 'fewshot_split' of"
                " the task"
            )
        specification = replace(specification, num_fewshot=options.num_fewshot)
    if options.max_new_tokens is not None and not protocol_generates(options):
        specification = replace(specification, max_new_tokens=options.max_new_tokens)
    return specification


def _overridden_harness(specification: LmEvalTask, options: Recipe) -> LmEvalTask:
    """Return a task of the harness with the recipe's settings."""
    include_path = options.lm_eval_include_path
    if include_path is not None:
        specification = replace(specification, include_path=str(include_path.resolve()))
    if options.num_fewshot is not None:
        specification = replace(specification, num_fewshot=options.num_fewshot)
    if options.fewshot_seeds:
        specification = replace(specification, fewshot_seed=options.fewshot_seeds[0])
    kwargs = dict(options.lm_eval_gen_kwargs or {})
    if options.max_new_tokens is not None:
        kwargs.setdefault("max_gen_toks", options.max_new_tokens)
    if kwargs:
        kwargs = {**(specification.generation_kwargs or {}), **kwargs}
        specification = replace(specification, generation_kwargs=kwargs)
    return specification


def _overridden(
    specification: MultipleChoiceTask, fewshot_examples: Path | None, num_fewshot: int | None
) -> MultipleChoiceTask:
    """Return a task with the few-shot examples of the recipe, where it has some."""
    if fewshot_examples is not None:
        path = str(fewshot_examples.resolve())
        specification = replace(specification, fewshot_examples=path)
    if num_fewshot is not None:
        # the protocol has the recipe's number
        specification = replace(specification, num_fewshot=None)
    return specification
