"""Options of Hugging Face's Trainer for a recipe."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from finetune.config.recipe import Optimizer, Training
from finetune.data.sampler import EpochSampler
from finetune.parallel import processes
from galen.errors import UsageError


def global_batch_size(training: Training) -> int:
    """Return the rows of an optimizer step over all processes."""
    return training.micro_batch_size * training.gradient_accumulation_steps * processes.count()


def total_steps(training: Training, sampler: EpochSampler) -> int:
    """Return the number of optimizer steps of the run; an epoch's last step may be smaller."""
    if training.train_iters is not None:
        return training.train_iters
    assert training.epochs is not None  # the recipe has one of the two
    return max(math.ceil(training.epochs * sampler.steps), 1)


def training_arguments(
    optimizer: Optimizer,
    training: Training,
    folder: Path,
    steps: int,
    validate: bool,
    resumed: bool,
) -> TrainingArguments:
    """Return the Trainer's options for a recipe.

    Args:
        optimizer: section of the recipe.
        training: section of the recipe.
        folder: folder of the checkpoints.
        steps: optimizer steps of the run.
        validate: whether there are validation samples.
        resumed: whether the run resumes from a checkpoint.

    Raises:
        UsageError: FSDP is requested with one process.
    """
    if training.fsdp and processes.count() == 1:
        raise UsageError(
            "training.fsdp needs several processes: add --nproc-per-node N, or set it to false"
        )
    warmup_steps = math.ceil(optimizer.lr_warmup_fraction * steps)
    schedule = _lr_schedule(optimizer, decay=warmup_steps < steps)
    cpu = not torch.cuda.is_available()
    options = TrainingArguments(
        output_dir=str(folder),
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and processes.count() > 1 else None,
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        bf16=training.bf16,
        gradient_checkpointing=training.gradient_checkpointing,
        max_steps=steps,
        learning_rate=optimizer.lr,
        lr_scheduler_type=schedule.name,
        lr_scheduler_kwargs=schedule.options,
        warmup_steps=warmup_steps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.clip_grad,
        seed=training.seed,
        data_seed=training.seed,
        fsdp="full_shard auto_wrap" if training.fsdp else None,
        fsdp_config={"version": 2, "state_dict_type": "FULL_STATE_DICT"} if training.fsdp else None,
        ddp_find_unused_parameters=False,
        **_checkpoint_options(training, validate, resumed),
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must be visible
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        disable_tqdm=True,
        report_to="none",
    )
    options._n_gpu = min(options.n_gpu, 1)  # one GPU per process: no DataParallel
    return options


def _checkpoint_options(training: Training, validate: bool, resumed: bool) -> dict[str, Any]:
    """Return the Trainer's options about checkpoints and validations."""
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": training.save_interval,
        "save_total_limit": 2,
        "eval_strategy": "steps" if validate else "no",
        "eval_steps": training.eval_interval,
        "eval_on_start": validate and not resumed,
    }
    metric = training.metric_for_best_model
    if metric is not None:
        options["load_best_model_at_end"] = True
        options["metric_for_best_model"] = f"eval_{metric}"
        options["greater_is_better"] = metric == "accuracy"
    return options


@dataclass(frozen=True)
class _LrSchedule:
    """A learning rate schedule of `transformers.get_scheduler`."""

    name: str
    options: dict[str, float] = field(default_factory=dict)


def _lr_schedule(optimizer: Optimizer, decay: bool) -> _LrSchedule:
    """Return the schedule of a recipe.

    Args:
        optimizer: section of the recipe.
        decay: whether the run has steps after the warmup.
    """
    if optimizer.lr_decay_style == "constant":
        return _LrSchedule("constant_with_warmup")
    if optimizer.lr_decay_style == "cosine":
        if optimizer.min_lr:
            return _LrSchedule("cosine_with_min_lr", {"min_lr": optimizer.min_lr})
        return _LrSchedule("cosine")
    if optimizer.min_lr == optimizer.lr:
        return _LrSchedule("constant_with_warmup")
    # a polynomial divides by the number of steps after the warmup
    if optimizer.min_lr and decay:
        return _LrSchedule("polynomial", {"lr_end": optimizer.min_lr, "power": 1.0})
    return _LrSchedule("linear")
