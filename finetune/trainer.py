"""Hugging Face's Trainer with a loss on answer tokens, weighted by token over the whole batch in training and validation."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments

from finetune import processes, sharding
from finetune.batch import collate, collate_packed, loss_sum
from finetune.order import EpochOrder, Row, Rows
from finetune.recipe import Training
from finetune.sample import IGNORED
from galen.errors import DataError, UsageError
from megatron_ext import random_states

Accuracy = Callable[[Any], dict[str, float]]


class AnswerTrainer(Trainer):
    """A Trainer whose losses are means over answer tokens, however these fall into micro-batches and processes.

    Args:
        network: what is trained.
        order: training rows, in the order of training.
        validation: validation rows.
        options: see `arguments`.
        accuracy: returns the network's accuracy at each validation as `{"eval_accuracy": share}`, or None.
        callbacks: what else listens.
    """

    is_fsdp_enabled: bool

    def __init__(
        self,
        network: Any,
        order: EpochOrder,
        validation: Sequence[Row],
        options: TrainingArguments,
        accuracy: Accuracy | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.order, self.accuracy = order, accuracy
        self._collate = collate_packed if isinstance(order.rows[0], list) else collate
        super().__init__(
            model=network,
            args=options,
            data_collator=self._collate,
            train_dataset=Rows(order.rows),
            eval_dataset=Rows(validation),
            compute_loss_func=_mean_loss,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self._validated: tuple[int, dict[str, float]] | None = None

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; with FSDP on CPUs it is told to shard, which accelerate does by itself on GPUs alone."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            self.is_fsdp_enabled = True
            sharding.use(self.accelerator, self.args.fsdp_plugin_args)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        """Return the order of training; the Trainer's own would depend on the number of processes."""
        return self.order

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; torch does not say when it is the disk that is full."""
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if shutil.disk_usage(self.args.output_dir).free >= 2**20:
                raise
            raise DataError(
                f"no space is left for the checkpoint of step {self.state.global_step} in {self.args.output_dir}; make room, and the "
                "same command goes on from the last whole one"
            ) from error

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore the random states; what is none of NumPy's is refused, since NumPy takes it unseen."""
        with random_states.restoring(checkpoint or ""):
            for path in Path(checkpoint).glob("rng_state*.pth") if checkpoint else ():
                random_states.numpy_state(torch.load(path)["numpy"])
            super()._load_rng_state(checkpoint)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of all validation answer tokens. Draws no random numbers, so that training goes on as without it."""
        if self._validated is not None and self._validated[0] == self.state.global_step:
            return self._validated[1]  # the last step is validated by its number and as the last
        network, size = self.model_wrapped if self.is_fsdp_enabled else self.model, self.args.per_device_eval_batch_size
        network.eval()
        data, total = self.eval_dataset, torch.zeros(2, dtype=torch.float64, device=self.args.device)
        stride = size * self.args.world_size
        for start in range(0, len(data), stride):  # every process has as many batches: some at the end may be blank
            first = start + self.args.process_index * size
            batch = self._prepare_inputs(self._collate([data[place] for place in range(first, first + size)]))
            labels = batch.pop("labels")
            total += torch.stack([loss_sum(network(**batch).logits, labels), (labels != IGNORED).sum()]).double()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(total)
        metrics = {"eval_loss": (total[0] / total[1]).item(), "eval_tokens": int(total[1])}
        if self.accuracy is not None:
            metrics |= self.accuracy(network)
        network.train()
        self._validated = (self.state.global_step, metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def global_batch(training: Training) -> int:
    """Return the rows in an optimizer step over all processes that torchrun started."""
    return training.micro_batch_size * training.gradient_accumulation * processes.count()


def total_steps(training: Training, order: EpochOrder) -> int:
    """Return the number of optimizer steps: as given, or for the epochs (an epoch's last step may be smaller)."""
    if training.max_steps is not None:
        return training.max_steps
    assert training.epochs is not None  # the recipe has one of the two
    return max(math.ceil(training.epochs * order.steps), 1)


def arguments(training: Training, folder: Path, steps: int, validate: bool, resumed: bool) -> TrainingArguments:
    """Return the Trainer's options for a recipe; checkpoints go to `folder`.

    Raises:
        UsageError: FSDP is asked for with one process.
    """
    if training.fsdp and processes.count() == 1:
        raise UsageError("training.fsdp needs several processes: start with torchrun --nproc-per-node N; or set it to false")
    cosine = "cosine_with_min_lr" if training.final_learning_rate else "cosine"
    cpu = not torch.cuda.is_available()
    options = TrainingArguments(
        output_dir=str(folder),
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and processes.count() > 1 else None,
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        bf16=training.bf16,
        gradient_checkpointing=training.gradient_checkpointing,
        max_steps=steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup", "cosine": cosine}.get(training.schedule, training.schedule),
        lr_scheduler_kwargs={"min_lr": training.final_learning_rate} if training.final_learning_rate else {},
        warmup_steps=math.ceil(training.warmup_ratio * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        data_seed=training.seed,
        fsdp="full_shard auto_wrap" if training.fsdp else None,
        fsdp_config={"version": 2, "state_dict_type": "FULL_STATE_DICT"} if training.fsdp else None,
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=training.save_interval,
        save_total_limit=2,
        eval_strategy="steps" if validate else "no",
        eval_steps=training.validation_interval,
        eval_on_start=validate and not resumed,
        load_best_model_at_end=training.select_best is not None,
        metric_for_best_model=f"eval_{training.select_best}" if training.select_best else None,
        greater_is_better=training.select_best == "accuracy" if training.select_best else None,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must be seen, not averaged away
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        disable_tqdm=True,
        report_to="none",
    )
    options._n_gpu = min(options.n_gpu, 1)  # a single process takes a single GPU: no DataParallel
    return options


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; the first process removes those that a kill left half-written."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # the last file that is written
            whole.append(path)
        except (OSError, ValueError):
            if processes.is_first():
                shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """Return a micro-batch's part of the mean over all `num_items_in_batch` answer tokens of the accumulated batch."""
    return loss_sum(outputs.logits, labels) / num_items_in_batch
