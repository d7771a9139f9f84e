"""The recipe of a study: models, tasks and candidate prompts, which are evaluated first."""

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from evaluation.backends import model_folder
from evaluation.paired_verdict import judged_tasks, prompt_choice
from evaluation.protocols.protocol import Protocol
from evaluation.scoring import megatron_export, model_names, task_selection, task_types
from evaluation.scoring.recipe import Recipe, check_recipe
from galen import corpus_sources, iterations, log, recipe
from galen.atomic import write_text
from galen.errors import DataError, UsageError

OVERVIEW = "overview"
"""Name of the page of several models."""
logger = logging.getLogger(__name__)

_FIXED = ("model", "iterations", "adapter", "tasks", "data", "output", "name", "backend")
"""Keys of an evaluation that are the study's, not a prompt's."""


def _prompt(settings: dict[str, Any]) -> dict[str, Any]:
    known = {item.name for item in dataclasses.fields(Recipe)} - set(_FIXED)
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; a prompt has keys of `galen evaluate`")
    try:
        Recipe(tasks=[], data=Path(), output=Path(), **settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"key {key!r}: {first['msg']}") from None
    return settings


Prompt = Annotated[dict[str, Any], AfterValidator(_prompt)]


@dataclass(kw_only=True, config=recipe.STRICT)
class StudyModel:
    """A model of a study."""

    name: str
    """Its name on the pages."""
    path: Path
    """Hugging Face folder, or Megatron checkpoint."""
    adapter: Path | None = None
    """PEFT adapter on top of it."""
    iterations: int | str | None = None
    """Of a Megatron checkpoint: numbers with commas, or all; null: the newest.

    Several are models of their own, named NAME@ITERATION.
    """


@dataclass(kw_only=True, config=recipe.STRICT)
class StudyRecipe:
    """Whether models are better than the first one."""

    models: Annotated[list[StudyModel], Field(min_length=2)]
    """The base first, then the models made from it."""
    tasks: Annotated[list[str], Field(min_length=1)]
    """Medical and general tasks, as in `galen evaluate`."""
    general: list[str] | None = None
    """Those of the tasks that are not medical; null: MMLU's, TruthfulQA and known harness tasks.

    A task file by its path or its name without folder and ending.
    """
    prompts: Annotated[list[Prompt], Field(min_length=1)] = field(
        default_factory=lambda: [{"protocol": "lm_eval"}]
    )
    """Candidates: keys of `galen evaluate`, such as protocol; the first is the fixed one."""
    data: Path
    """Folder that contains the tasks' files."""
    output: Path
    """Folder of the pages; the runs are in OUTPUT/runs."""
    settings: Prompt = field(default_factory=dict)
    """Further keys of `galen evaluate` for all runs, such as device, limit or contamination."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = prompt_choice.VALIDATION_FRACTION
    """Fraction of each task's samples that the prompts are chosen on."""
    judges: list[Path] = field(default_factory=list)
    """Folders of judges that have scored answers of all models, see `galen judge`."""
    corpus: Path | None = None
    """Curated corpus of the training, for sources and licenses."""

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("key 'models': two have the same name")
        known = [_task_name(task) for task in self.tasks]
        unknown = [task for task in self.general or () if _task_name(task) not in known]
        if unknown:
            raise ValueError(
                f"key 'general': {unknown[0]!r} is not one of the tasks: {', '.join(known)}"
            )


def general_tasks(options: StudyRecipe) -> list[str] | None:
    """Return the names of the general tasks."""
    if options.general is None:
        return None
    return [_task_name(task) for task in options.general]


def _task_name(task: str) -> str:
    """Return a task's name; a task file is named by its stem."""
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task


def models(options: StudyRecipe) -> list[StudyModel]:
    """Return the models, each with one iteration at most; the base is the first.

    Raises:
        UsageError, DataError: a checkpoint lacks an iteration, or the base has several.
    """
    result: list[StudyModel] = []
    for model in options.models:
        if model.iterations is None:
            result.append(model)
            continue
        if not megatron_export.is_checkpoint(model.path):
            raise UsageError(
                f"model {model.name}: key 'iterations' is for Megatron checkpoints; {model.path} is"
                " none"
            )
        numbers = iterations.select(model.path, str(model.iterations))
        if len(numbers) > 1 and not result:
            raise UsageError(
                f"model {model.name}: the base has {len(numbers)} iterations, give one"
            )
        for number in numbers:
            name = f"{model.name}@{number}" if len(numbers) > 1 else model.name
            result.append(replace(model, name=name, iterations=number))
    return result


def evaluate(options: StudyRecipe) -> list[Path]:
    """Score all models under all prompts; return the folders. Finished runs are not repeated.

    Each run is a process of its own, so that its memory, also on a GPU, is free for the next.

    Raises:
        UsageError: a setting is wrong; all are checked before the first run.
        DataError: a run has failed.
    """
    recipes = [
        _recipe(options, model, number, prompt)
        for number, prompt in enumerate(options.prompts)
        for model in models(options)
    ]
    _check(options, recipes)
    for number, item in enumerate(recipes, start=1):
        logger.info(f"run {number} of {len(recipes)}: {item.output}")
        path = item.output.with_name(f"{item.output.name}.yaml")
        write_text(path, recipe.dump(item))
        command = [sys.executable, "-m", "galen", "evaluate", *log.level_option(), str(path)]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            raise DataError(
                f"`galen evaluate {path}` has failed, see its message above; the same command"
                " resumes"
            )
    return [item.output for item in recipes]


def _check(options: StudyRecipe, recipes: Sequence[Recipe]) -> None:
    """Check all that the pages need, so that nothing is refused after hours of scoring.

    Raises:
        UsageError, DataError: something is wrong or missing.
    """
    names = [model.name for model in models(options)]
    model_names.check_files(names, reserved=[OVERVIEW])
    for item in recipes:
        protocol = check_recipe(item)
        _check_tasks(options, item, protocol)
    for model in options.models:
        if not megatron_export.is_checkpoint(model.path):
            model_folder.check_model(model.path)
    for name in names[1:]:
        judged_tasks.judge_tasks(options.judges, names[0], name)
    if options.corpus is not None:
        corpus_sources.read(options.corpus)


def _check_tasks(options: StudyRecipe, item: Recipe, protocol: Protocol) -> None:
    """Check that the tasks' files exist and have enough samples to choose prompts on."""
    for name, specification in task_selection.select(item).items():
        task_type = task_types.of(specification)
        task_type.input_files(specification, options.data)
        if len(options.prompts) == 1 or not task_type.uses_protocol:
            continue
        samples = task_type.read_samples(specification, options.data, item.limit)
        task_type.few_shot(name, specification, options.data, protocol, samples)
        ids = [sample.id for sample in task_type.limited(samples, item.limit)]
        prompt_choice.split(name, ids, len(options.prompts), options.validation_fraction)


def _recipe(options: StudyRecipe, model: StudyModel, number: int, prompt: dict[str, Any]) -> Recipe:
    return Recipe(
        model=[model.path],
        iterations=model.iterations,
        adapter=model.adapter,
        tasks=options.tasks,
        data=options.data,
        output=options.output / "runs" / f"prompt{number}" / model_names.file_stem(model.name),
        name=model.name,
        **{**options.settings, **prompt},
    )
