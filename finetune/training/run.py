"""A fine-tuning run from the loaded model to the saved result, on one process or several."""

import json
import logging
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from evaluation.backends.transformers_backend import quiet
from finetune.config.recipe import Recipe
from finetune.data import chat, sample
from finetune.data.batch import pack
from finetune.data.record import Conversation
from finetune.data.sample import Sample
from finetune.data.sampler import EpochSampler, Row
from finetune.data.training_data import TrainingData
from finetune.parallel import processes
from finetune.training import (
    checkpoint,
    model_loading,
    packing,
    trainer,
    training_arguments,
)
from finetune.training.metrics_logger import RunLog
from finetune.training.stopping import Stopping
from finetune.training.validation_accuracy import ValidationAccuracy
from galen import cli, launch, recipe
from galen.atomic import atomic_folder, write_text
from galen.errors import UsageError
from galen.stop_signals import EXIT_STOPPED, StopSignals


@dataclass(frozen=True)
class _Prepared:
    """Model and data of a run, before its first step."""

    model: Any
    tokenizer: Any
    new_tokens: list[int]
    """Ids of the tokens that the recipe adds."""
    train: list[Sample]
    validation: list[Sample]
    truncated: int
    """Number of truncated training samples."""
    sampler: EpochSampler


def train_model(
    options: Recipe, data: TrainingData, folder: Path, result: Path
) -> dict[str, Any] | None:
    """Train and save the result.

    Args:
        options: the recipe.
        data: its records.
        folder: the run folder.
        result: folder of the adapter or model.

    Returns:
        Counts for the manifest, or None when a signal stopped the run.

    Raises:
        UsageError, DataError: model, data and recipe do not match.
    """
    started = time.monotonic()
    prepared = _prepare(options, data)
    checkpoints = folder / "checkpoints"
    last = checkpoint.last_complete(checkpoints)
    if last:
        processes.log_once(f"resuming from {last}")
    steps = training_arguments.total_steps(options.training, prepared.sampler)
    arguments = training_arguments.training_arguments(
        options.optimizer,
        options.training,
        checkpoints,
        steps,
        validate=bool(prepared.validation),
        resumed=last is not None,
    )
    stopping = Stopping(StopSignals())
    accuracy = _accuracy(options, data, prepared.tokenizer, arguments, stopping)
    patience = options.training.early_stopping_patience
    callbacks: list[Any] = [trainer.EarlyStopping(patience)] if patience is not None else []
    # nothing before here writes a file: a corrected recipe can use the same folder
    if processes.is_first():
        _write_recipe(options, data, folder)
        done = checkpoint.step_of(last) if last else 0
        callbacks.append(RunLog(folder / "log.jsonl", done, steps, prepared.sampler.consumed))
    validation_rows = _rows(options, prepared.validation)
    loop = trainer.AnswerTrainer(
        prepared.model, prepared.sampler, validation_rows, arguments, accuracy, callbacks, stopping
    )
    with stopping.signals:
        loop.train(resume_from_checkpoint=str(last) if last else None)
        # logged before a signal can end the process: a launcher sends one when another has ended
        if stopping.reason is not None:
            _log_stopped(stopping.reason, loop.state.global_step, steps, checkpoints)
            return None
    _save(options, loop, prepared.tokenizer, folder, result)
    return _counts(prepared, loop, started)


def _prepare(options: Recipe, data: TrainingData) -> _Prepared:
    """Load the model and encode the data.

    Raises:
        UsageError, DataError: model, data and recipe do not match.
    """
    processes.log_once("loading the model")
    _quiet()
    transformers.set_seed(options.training.seed)
    model, tokenizer, new_tokens = _model(options, data)
    if tokenizer.eos_token_id is None:
        processes.log_once(
            "this tokenizer has no end-of-sequence token: the end of completions is not trained"
        )
    max_length = options.data.max_length
    train, truncated = sample.encode(data.train, tokenizer, max_length)
    validation, _ = sample.encode(data.validation, tokenizer, max_length)
    global_batch = training_arguments.global_batch_size(options.training)
    sampler = EpochSampler(_rows(options, train), global_batch, options.training.seed)
    _check_length([*train, *validation], model)
    if options.data.packing:
        packing.check(model)
    processes.log_once(
        f"{truncated:,} samples truncated to {max_length} tokens; {len(sampler.rows):,} rows,"
        f" {sampler.steps:,} steps per epoch"
    )
    processes.log_once(
        f"{model_loading.trainable(model):,} of {model.num_parameters():,} weights are trained"
    )
    return _Prepared(model, tokenizer, new_tokens, train, validation, truncated, sampler)


def _write_recipe(options: Recipe, data: TrainingData, folder: Path) -> None:
    """Write the recipe with its defaults, and the records excluded by decontamination."""
    write_text(folder / "recipe.yaml", recipe.dump(options))
    if options.data.decontaminate_against:
        lines = [json.dumps(match, ensure_ascii=False) + "\n" for match in data.contaminated]
        write_text(folder / "contamination.jsonl", "".join(lines))


def _counts(prepared: _Prepared, loop: trainer.AnswerTrainer, started: float) -> dict[str, Any]:
    """Return the counts of a finished run for its manifest."""
    step = loop.state.global_step
    best = loop.state.best_model_checkpoint
    return {
        "samples": {
            "train": len(prepared.train),
            "validation": len(prepared.validation),
            "truncated": prepared.truncated,
            "rows": len(prepared.sampler.rows),
        },
        "steps": step,
        "best_step": checkpoint.step_of(Path(best)) if best else None,
        "tokens": prepared.sampler.consumed(step)[1],
        "trained_weights": model_loading.trainable(prepared.model),
        "new_tokens": len(prepared.new_tokens),
        "processes": loop.args.world_size,
        "seconds_since_start": round(time.monotonic() - started, 1),
    }


def _log_stopped(reason: str, step: int, steps: int, checkpoints: Path) -> None:
    """Log the checkpoint of a stopped run, and the command that resumes it."""
    message = f"stopped by {reason} before the first step; nothing is saved"
    if step:
        path = checkpoints / f"checkpoint-{step}"
        message = f"stopped by {reason} after step {step:,} of {steps:,}; checkpoint: {path}"
    cli.report_to_launcher(
        f"{message}; exit code {EXIT_STOPPED}", EXIT_STOPPED, processes.is_first()
    )
    processes.log_once(message)
    processes.log_once(f"resume with: {launch.command()}")


def _quiet() -> None:
    quiet()
    # it advises on kernels even when it is not used
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # about the size of checkpoints, which does not matter
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")


def _model(options: Recipe, data: TrainingData) -> tuple[Any, Any, list[int]]:
    """Return the model ready for training, its tokenizer, and the ids of added tokens."""
    model, tokenizer = model_loading.load(options.model)
    new_tokens = model_loading.add_tokens(model, tokenizer, options.model.add_tokens)
    template = None
    if options.data.chat_template is not None:
        template = chat.read_template(options.data.chat_template)
    items = (*data.train, *data.validation)
    has_conversations = any(isinstance(item.record, Conversation) for item in items)
    if template is not None or has_conversations:
        chat.install(tokenizer, template)
        model_loading.set_end_of_answer(model, tokenizer)
        if not chat.has_end_mark(tokenizer):
            processes.log_once(
                f"the chat template writes no token after an answer: {tokenizer.eos_token} is"
                " trained after the last one"
            )
    if options.lora is not None:
        model = model_loading.add_lora(
            model, options.lora, new_tokens, options.training.gradient_checkpointing
        )
    return model, tokenizer, new_tokens


def _check_length(samples: list[Sample], model: Any) -> None:
    """Check that the longest sample fits into the model's context.

    Raises:
        UsageError: it does not.
    """
    longest = max(map(len, samples))
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise UsageError(
            f"the longest sample has {longest:,} tokens, the model's context {limit:,}:"
            f" data.max_length={limit}"
        )


def _rows(options: Recipe, samples: list[Sample]) -> list[Row]:
    return list(pack(samples, options.data.max_length)) if options.data.packing else list(samples)


def _accuracy(
    options: Recipe, data: TrainingData, tokenizer: Any, arguments: Any, stopping: Stopping
) -> ValidationAccuracy | None:
    """Return the accuracy metric of validations if the best checkpoint is chosen by it.

    Raises:
        UsageError: no validation question can be scored by likelihood.
    """
    if options.training.metric_for_best_model != "accuracy":
        return None
    items = [item for item in data.validation if ValidationAccuracy.can_score(item)]
    if not items:
        raise UsageError(
            "training.metric_for_best_model: accuracy needs validation questions with one right"
            " option, in a template without a rationale; write loss, or change data.validation"
        )
    return ValidationAccuracy(items, tokenizer, arguments, stopping)


def _save(
    options: Recipe, loop: trainer.AnswerTrainer, tokenizer: Any, folder: Path, result: Path
) -> None:
    """Write the result, and with `lora.merge` the merged model.

    All processes take part, the first writes.
    """
    weights = loop.accelerator.get_state_dict(loop.model_wrapped) if loop.is_fsdp_enabled else None
    if processes.is_first():
        # complete, but of a run killed before it wrote its manifest
        shutil.rmtree(result, ignore_errors=True)
        with atomic_folder(result) as temporary:
            model_loading.save(loop.model, tokenizer, temporary, weights)
        if options.lora is not None and options.lora.merge:
            shutil.rmtree(folder / "model", ignore_errors=True)
            with atomic_folder(folder / "model") as temporary:
                model_loading.merge(options.model, result, temporary, loop.model.generation_config)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
