"""A fine-tuning run from the loaded model to the saved result, on one process or several."""

import json
import logging
import shutil
import time
import warnings
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
from finetune.training import checkpoint, model_loading, trainer
from finetune.training.metrics_logger import RunLog
from finetune.training.stopping import Stopping
from finetune.training.validation_accuracy import ValidationAccuracy
from galen import cli, launch, recipe
from galen.atomic import atomic_folder, write_text
from galen.errors import UsageError
from galen.stop_signals import EXIT_STOPPED, StopSignals


def train_model(
    options: Recipe, data: TrainingData, folder: Path, result: Path
) -> dict[str, Any] | None:
    """Train, publish the result, and return counts for the manifest, or None when stopped.

    A run is stopped by a signal.

    Raises:
        UsageError, DataError: model, data and recipe do not fit.
    """
    processes.log_once("loading the model")
    _quiet()
    transformers.set_seed(options.training.seed)
    started = time.monotonic()
    checkpoints = folder / "checkpoints"
    model, tokenizer, new_tokens = _model(options, data)
    if tokenizer.eos_token_id is None:
        processes.log_once(
            "this tokenizer names no end-of-sequence token: the end of a completion is not learnt"
        )
    train, cut = sample.encode(data.train, tokenizer, options.data.max_length)
    held_out, _ = sample.encode(data.validation, tokenizer, options.data.max_length)
    sampler = EpochSampler(
        _rows(options, train), trainer.global_batch(options.training), options.training.seed
    )
    _check_length([*train, *held_out], model)
    processes.log_once(
        f"{cut:,} samples cut at {options.data.max_length} tokens; {len(sampler.rows):,} rows,"
        f" {sampler.steps:,} steps in an epoch"
    )
    processes.log_once(
        f"{model_loading.trainable(model):,} of {model.num_parameters():,} weights are trained"
    )

    last = trainer.last_checkpoint(checkpoints)
    done = checkpoint.step_of(last) if last else 0
    if last:
        processes.log_once(f"resuming from {last}")
    steps = trainer.total_steps(options.training, sampler)
    arguments = trainer.arguments(
        options.optimizer,
        options.training,
        checkpoints,
        steps,
        validate=bool(held_out),
        resumed=last is not None,
    )
    patience = options.training.early_stopping_patience
    callbacks: list[Any] = [trainer.EarlyStopping(patience)] if patience is not None else []
    stopping = Stopping(StopSignals())
    accuracy = _accuracy(options, data, tokenizer, arguments, stopping)
    # nothing before here leaves a file: a corrected recipe can go into the same folder
    if processes.is_first():
        write_text(folder / "recipe.yaml", recipe.dump(options))
        if options.data.decontaminate_against:
            write_text(
                folder / "contamination.jsonl",
                "".join(
                    json.dumps(found, ensure_ascii=False) + "\n" for found in data.contaminated
                ),
            )
        callbacks.append(RunLog(folder / "log.jsonl", done, steps, sampler.consumed))
    loop = trainer.AnswerTrainer(
        model, sampler, _rows(options, held_out), arguments, accuracy, callbacks, stopping
    )
    with stopping.signals:
        loop.train(resume_from_checkpoint=str(last) if last else None)
        # logged before a signal can end the process: a launcher sends one when another has ended
        if stopping.reason is not None:
            _log_stopped(stopping.reason, loop.state.global_step, steps, checkpoints)
            return None
    _save(options, loop, tokenizer, folder, result)
    best = loop.state.best_model_checkpoint
    return {
        "samples": {
            "train": len(train),
            "validation": len(held_out),
            "cut": cut,
            "rows": len(sampler.rows),
        },
        "steps": loop.state.global_step,
        "best_step": checkpoint.step_of(Path(best)) if best else None,
        "tokens": sampler.consumed(loop.state.global_step)[1],
        "trained_weights": model_loading.trainable(model),
        "new_tokens": len(new_tokens),
        "processes": arguments.world_size,
        "seconds_since_start": round(time.monotonic() - started, 1),
    }


def _log_stopped(reason: str, step: int, steps: int, checkpoints: Path) -> None:
    """Log what a stopped run has kept, and the command that resumes it."""
    done = f"stopped by {reason} before the first step was done; nothing is kept"
    if step:
        done = (
            f"stopped by {reason} after step {step:,} of {steps:,}; kept:"
            f" {checkpoints / f'checkpoint-{step}'}"
        )
    cli.report_to_launcher(f"{done}; exit code {EXIT_STOPPED}", EXIT_STOPPED, processes.is_first())
    processes.log_once(done)
    processes.log_once(f"resume with: {launch.command()}")


def _quiet() -> None:
    quiet()
    # it advises on kernels even where it is not used
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # of a checkpoint, whose size does not matter
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")


def _model(options: Recipe, data: TrainingData) -> tuple[Any, Any, list[int]]:
    """Return the model ready for training, its tokenizer, and the ids of added tokens."""
    model, tokenizer = model_loading.load(options.model)
    new_tokens = model_loading.add_tokens(model, tokenizer, options.model.add_tokens)
    items = (*data.train, *data.validation)
    if options.data.chat_template is not None or any(
        isinstance(item.record, Conversation) for item in items
    ):
        template = (
            chat.read_template(options.data.chat_template)
            if options.data.chat_template is not None
            else None
        )
        chat.install(tokenizer, template)
        model_loading.set_end_of_answer(model, tokenizer)
        if not chat.has_end_mark(tokenizer):
            processes.log_once(
                f"the chat template writes no token behind an answer: {tokenizer.eos_token} is"
                " learnt behind the last one"
            )
    if options.lora is not None:
        model = model_loading.add_lora(
            model, options.lora, new_tokens, options.training.gradient_checkpointing
        )
    return model, tokenizer, new_tokens


def _check_length(samples: list[Sample], model: Any) -> None:
    """Check that the model can read the longest sample.

    Raises:
        UsageError: it was made for shorter ones.
    """
    longest, limit = max(map(len, samples)), getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise UsageError(
            f"the longest sample has {longest:,} tokens, and the model reads {limit:,} at most:"
            f" data.max_length={limit}"
        )


def _rows(options: Recipe, samples: list[Sample]) -> list[Row]:
    return list(pack(samples, options.data.max_length)) if options.data.packing else list(samples)


def _accuracy(
    options: Recipe, data: TrainingData, tokenizer: Any, arguments: Any, stopping: Stopping
) -> ValidationAccuracy | None:
    """Return the accuracy measure of validations, where the best checkpoint is chosen by it.

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
        # whole, but of a run killed before it wrote its manifest
        shutil.rmtree(result, ignore_errors=True)
        with atomic_folder(result) as temporary:
            model_loading.save(loop.model, tokenizer, temporary, weights)
        if options.lora is not None and options.lora.merge:
            shutil.rmtree(folder / "model", ignore_errors=True)
            with atomic_folder(folder / "model") as temporary:
                model_loading.merge(options.model, result, temporary, loop.model.generation_config)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
