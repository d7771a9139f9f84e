"""Preparation of an evaluation: all inputs are read and checked before any work."""

import itertools
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.backends import model_folder
from evaluation.backends.endpoint import Endpoint
from evaluation.metrics import contamination
from evaluation.protocols import few_shot
from evaluation.protocols.protocol import Protocol
from evaluation.scoring import (
    endpoint_settings,
    evaluator,
    megatron_export,
    model_settings,
    option_orders,
    task_selection,
    task_types,
)
from evaluation.scoring.option_orders import OptionOrders
from evaluation.scoring.recipe import Recipe, check_recipe
from evaluation.tasks.task import Task
from galen import iterations, manifest, recipe
from galen.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to score: a Hugging Face folder, or an iteration of a Megatron checkpoint."""

    name: str
    folder: Path
    iteration: int | None
    """None for a Hugging Face folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """The inputs of an evaluation, read and checked."""

    protocol: Protocol
    endpoint: Endpoint | None
    """The model, where an endpoint has it."""
    tasks: dict[str, Task]
    models: list[ModelSource]
    contaminated: contamination.Contaminated | None
    files: dict[str, list[Path]]
    """Each task's input files."""
    samples: dict[str, list[Any]]
    """Each task's questions or documents."""
    examples: dict[str, dict[int, few_shot.FewShotExamples]]
    """Each task's few-shot examples by run."""
    orders: dict[str, OptionOrders]
    """The questions of each task with options in further orders; empty if these are not scored."""


def prepare(options: Recipe) -> Preparation:
    """Read and check all inputs of a recipe before a model is exported, hashed or loaded.

    Raises:
        UsageError, DataError: something is wrong or missing.
    """
    protocol = check_recipe(options)
    tasks = task_selection.select(options)
    endpoint_settings.check_tasks(options, tasks)
    models = _models(options)
    contaminated = None
    if options.contamination is not None:
        contaminated = contamination.read(options.contamination, options.contamination_threshold)
    files: dict[str, list[Path]] = {}
    samples: dict[str, list[Any]] = {}
    examples: dict[str, dict[int, few_shot.FewShotExamples]] = {}
    for name, specification in tasks.items():
        files[name] = task_types.of(specification).input_files(specification, options.data)
    for name, specification in tasks.items():
        task_type = task_types.of(specification)
        samples[name] = task_type.read_samples(specification, options.data, options.limit)
    for name, specification in tasks.items():
        # before the limit: it changes no few-shot examples
        task_type = task_types.of(specification)
        examples[name] = task_type.few_shot(
            name, specification, options.data, protocol, samples[name]
        )
        samples[name] = task_type.limited(samples[name], options.limit)
    if contaminated is not None:
        ids = {name: {sample.id for sample in of_task} for name, of_task in samples.items()}
        contamination.warn_of_ids(contaminated, ids)
    return Preparation(
        protocol=protocol,
        endpoint=endpoint_settings.endpoint(options, protocol),
        tasks=tasks,
        models=models,
        contaminated=contaminated,
        files=files,
        samples=samples,
        examples=examples,
        orders=_orders(options, protocol, tasks, samples),
    )


def _orders(
    options: Recipe, protocol: Protocol, tasks: dict[str, Task], samples: dict[str, list[Any]]
) -> dict[str, OptionOrders]:
    """Return the questions of each task in further orders, if the recipe has them scored.

    Raises:
        UsageError: no task has options that can be permuted.
    """
    if options.permute_options is None:
        return {}
    orders: dict[str, OptionOrders] = {}
    for name, specification in tasks.items():
        template = task_types.of(specification).options_template(specification, protocol)
        if template is not None:
            orders[name] = option_orders.permute(
                samples[name], template, options.permute_options, options.permute_seed
            )
    for name, of_task in orders.items():
        if excluded := option_orders.exclusions(of_task.excluded):
            logger.info(f"task {name}: not permuted: {excluded}")
    if not any(of_task.by_number for of_task in orders.values()):
        raise UsageError(
            f"--permute-options: under the protocol {options.protocol} no task has questions whose"
            " options can be shown in another order"
        )
    return orders


def outputs(options: Recipe, models: list[ModelSource]) -> list[Path]:
    """Return the folder of each model's scores."""
    if len(models) == 1:
        return [options.output]
    return [options.output / model.name for model in models]


def plans(
    options: Recipe, prepared: Preparation, rank: int, is_child: bool
) -> list[evaluator.Plan]:
    """Return the plan of each model; exports Megatron checkpoints and hashes the inputs.

    Args:
        options: the recipe.
        prepared: its inputs, checked.
        rank: this process' number.
        is_child: whether another process of this machine has started this one.

    Raises:
        DataError: an export fails, or a file differs from its recorded hash.
    """
    folders = [_exported(options, model, rank) for model in prepared.models]
    if rank == 0:
        logger.info("hashing the models and the data")
    for folder in folders:
        length = None if prepared.endpoint else model_folder.context_length(folder)
        for name, specification in prepared.tasks.items():
            task_types.of(specification).check_length(name, specification, length)
    result = []
    for model, folder, output in zip(
        prepared.models, folders, outputs(options, prepared.models), strict=True
    ):
        name = model.name
        if len(prepared.models) == 1:
            name = options.name or options.output.name
        if prepared.endpoint:
            protocol = endpoint_settings.resolve(prepared.protocol)
        else:
            protocol = model_settings.resolve(prepared.protocol, folder)
        configuration: dict[str, Any] = {}
        if not is_child:
            configuration = _configuration(options, prepared, folder, name)
            configuration |= model_settings.identity(prepared.protocol, protocol)
        plan = evaluator.Plan(
            model=folder,
            output=output,
            name=name,
            adapter=options.adapter,
            protocol_name=options.protocol,
            protocol=protocol,
            tasks=prepared.tasks,
            max_batch_tokens=options.max_batch_tokens,
            dtype=options.dtype,
            device=options.device,
            backend=options.backend,
            endpoint=prepared.endpoint,
            tensor_parallel=options.tensor_parallel,
            contaminated=prepared.contaminated,
            orders=prepared.orders,
            configuration=configuration,
            files=list(itertools.chain.from_iterable(prepared.files.values())),
            recipe=recipe.dump(options),
        )
        result.append(plan)
    return result


def _models(options: Recipe) -> list[ModelSource]:
    if options.backend == "openai":
        return [ModelSource(str(options.model_name), Path(str(options.base_url)), None)]
    models: list[ModelSource] = []
    for folder in options.model:
        if megatron_export.is_checkpoint(folder):
            selection = None if options.iterations is None else str(options.iterations)
            for number in iterations.select(folder, selection):
                models.append(ModelSource(f"iter_{number:07d}", folder, number))
        elif options.iterations is not None:
            raise UsageError(f"--iterations is for Megatron checkpoints; {folder} is none")
        else:
            checked = model_folder.check_model(folder)
            models.append(ModelSource(folder.resolve().name, checked, None))
    if len(models) == 1:
        return models
    names = [model.name for model in models]
    if options.adapter is not None:
        raise UsageError("--adapter goes with one --model")
    if options.name or len(set(names)) < len(names):
        raise UsageError(
            f"several models are named by their folders, which must differ ({', '.join(names)}),"
            " not by --name"
        )
    return models


def _exported(options: Recipe, model: ModelSource, rank: int) -> Path:
    """Return a model's folder; exports an iteration of a Megatron checkpoint to OUTPUT.models."""
    if model.iteration is None:
        return model.folder
    exports = options.output.with_name(f"{options.output.name}.models")
    return megatron_export.export(
        model.folder, model.iteration, exports / model.name, rank, options.verify_checksums
    )


def model_identity(
    options: Recipe, endpoint: Endpoint | None, model: Path, name: str
) -> dict[str, Any]:
    """Return which model is asked: a folder with its hashes, or an endpoint."""
    if endpoint is None:
        hashes = model_folder.hashes(model, options.verify_checksums)
        return {"name": name, "path": str(model.resolve()), "files": hashes}
    tokenizer = None
    if endpoint.tokenizer is not None:
        tokenizer = model_folder.hashes(endpoint.tokenizer, options.verify_checksums)
    return {"name": name, "endpoint": endpoint.identity(), "tokenizer": tokenizer}


def _configuration(
    options: Recipe, prepared: Preparation, model: Path, name: str
) -> dict[str, Any]:
    """Return the settings that decide the scores, with the hashes of all input files."""
    adapter: dict[str, Any] | None = None
    if options.adapter is not None:
        hashes = model_folder.hashes(options.adapter, options.verify_checksums)
        adapter = {"path": str(options.adapter), "files": hashes}
    tasks: dict[str, Any] = {}
    for task_name, specification in prepared.tasks.items():
        identity = task_types.of(specification).identity(specification, options.data)
        hashes = _hashes(prepared.files[task_name])
        tasks[task_name] = {**recipe.to_dict(specification), **identity, "files": hashes}
    return {
        "model": model_identity(options, prepared.endpoint, model, name),
        "adapter": adapter,
        "protocol": options.protocol,
        "settings": asdict(prepared.protocol),
        "dtype": options.dtype,
        "backend": options.backend,
        "limit": options.limit,
        "permute_options": options.permute_options,
        "permute_seed": options.permute_seed,
        "tasks": tasks,
    }


def _hashes(files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by name, or by path where two have the same name."""
    names = Counter(path.name for path in files)
    return {
        path.name if names[path.name] == 1 else str(path): manifest.sha256(path) for path in files
    }
