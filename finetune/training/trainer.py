"""Hugging Face's Trainer with a token-weighted loss on answers, in training and validation."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finetune.data.batch import collate, collate_packed, loss_sum
from finetune.data.sample import IGNORE_INDEX
from finetune.data.sampler import EpochSampler, Row, Rows
from finetune.parallel import sharding
from finetune.training import checkpoint
from finetune.training.stopping import Stopping, ValidationStopped
from galen.errors import DataError

Accuracy = Callable[[Any], dict[str, float]]


class AnswerTrainer(Trainer):
    """A Trainer whose loss is the mean over the answer tokens of a global batch.

    It does not depend on their division among micro-batches and processes.

    Args:
        model: the model to train.
        sampler: training rows, in the order of training.
        validation: validation rows.
        options: see `training_arguments`.
        accuracy: returns the model's accuracy at each validation as `{"eval_accuracy": 0.5}`,
            or None.
        callbacks: callbacks of the Trainer.
        stopping: asked after each step and each batch of a validation whether to save and end.
    """

    is_fsdp_enabled: bool

    def __init__(
        self,
        model: Any,
        sampler: EpochSampler,
        validation: Sequence[Row],
        options: TrainingArguments,
        accuracy: Accuracy | None,
        callbacks: list[TrainerCallback],
        stopping: Stopping,
    ) -> None:
        self.sampler = sampler
        self.accuracy = accuracy
        self.stopping = stopping
        self._validation_is_due = False
        self._collate = collate_packed if isinstance(sampler.rows[0], list) else collate
        super().__init__(
            model=model,
            args=options,
            data_collator=self._collate,
            train_dataset=Rows(sampler.rows),
            eval_dataset=Rows(validation),
            compute_loss_func=_mean_loss,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self._validated: tuple[int, dict[str, float]] | None = None

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator; also with FSDP on CPUs, where accelerate does not shard."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            self.is_fsdp_enabled = True
            sharding.use(self.accelerator, self.args.fsdp_plugin_args)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the weights with weight decay: as in Megatron, the matrices only.

        The Trainer excludes norms and biases by name, not xIELU's parameters or attention sinks.
        """
        vectors = {name for name, weight in model.named_parameters() if weight.dim() < 2}
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if name not in vectors]

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        """Return the sampler; the Trainer's own would depend on the number of processes."""
        return self.sampler

    def _must_stop(self) -> bool:
        return self.stopping.agreed(self.args.device)

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        """Log, validate and save after a step when due.

        When the run must stop, save immediately: a resumed run validates first.
        """
        try:
            if self._must_stop():
                raise ValidationStopped
            super()._maybe_log_save_evaluate(*arguments, **options)
        except ValidationStopped:
            self._validation_is_due = self.control.should_evaluate
            self.control.should_evaluate = False
            self.control.should_save = not self._checkpoint(self.state.global_step).exists()
            self._end_early()
            super()._maybe_log_save_evaluate(*arguments, **options)

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """Validate; also before the first step of a resumed run, if the stopped run was due."""
        if not skip_scheduler:
            return super()._evaluate(trial, ignore_keys_for_eval)
        try:
            metrics = self.evaluate()
        except ValidationStopped:
            self._end_early()
            return {}
        if self.state.global_step:
            self._determine_best_metric(metrics, trial)
            self._find_best_checkpoint()
        return metrics

    def _run_epoch(self, **options: Any) -> None:
        """Train for an epoch, unless there is nothing left to do."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            # accelerate does not call it when several processes skip batches on resuming
            self.sampler.set_epoch(options["epoch"])
            super()._run_epoch(**options)

    def _end_early(self) -> None:
        self.control.should_training_stop = True
        self.args.load_best_model_at_end = False

    def _checkpoint(self, step: int) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{step}"

    # ---- Checkpoints without pickles ----

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; torch does not report a full disk as such."""
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if shutil.disk_usage(self.args.output_dir).free >= 2**20:
                raise
            raise DataError(
                f"no space is left for the checkpoint of step {self.state.global_step} in"
                f" {self.args.output_dir}; free some, and the same command resumes from the last"
                " complete one"
            ) from error

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights as `transformers` and `peft` do; FSDP's are in the training state."""
        if self.args.should_save and not self.is_fsdp_enabled:
            self.model.save_pretrained(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        folder = Path(output_dir)
        if self.is_fsdp_enabled:
            weights, optimizer = self._sharded_state()
        else:
            weights, optimizer = None, self.optimizer.state_dict()
        if not self.args.should_save:
            return
        if weights is not None:
            checkpoint.write(folder, checkpoint.FSDP_WEIGHTS, weights)
        state = {
            "optimizer": optimizer,
            "scheduler": self.lr_scheduler.state_dict(),
            "validation_is_due": self._validation_is_due,
        }
        checkpoint.write(folder, checkpoint.TRAINING_STATE, state)

    def _save_rng_state(self, output_dir: str) -> None:
        checkpoint.write(Path(output_dir), self._random_name(), checkpoint.random_state())

    def _save_scaler(self, output_dir: str) -> None:
        """Do nothing: bfloat16 needs no loss scaling."""

    def _init_training_state(self, *arguments: Any, **options: Any) -> tuple[int, int]:
        """Read the trainer's state; the best checkpoint is in this folder, even if moved."""
        with checkpoint.reading(self.args.output_dir):
            position = super()._init_training_state(*arguments, **options)
        self._find_best_checkpoint()
        return position

    def _find_best_checkpoint(self) -> None:
        step = self.state.best_global_step
        folder = self._checkpoint(step) if step else None
        if folder is not None and not folder.is_dir():
            raise DataError(
                f"the best checkpoint {folder} is missing; remove {self.args.output_dir}, and the"
                " same command starts from the beginning"
            )
        self.state.best_model_checkpoint = None if folder is None else str(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_weights(Path(self.state.best_model_checkpoint))

    def _load_weights(self, folder: Path) -> None:
        with checkpoint.reading(folder):
            if self.is_fsdp_enabled:
                options = StateDictOptions(full_state_dict=True, cpu_offload=True)
                set_model_state_dict(
                    self.model, checkpoint.read(folder, checkpoint.FSDP_WEIGHTS), options=options
                )
            else:
                checkpoint.load_weights(self.model, folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._load_training_state(Path(checkpoint))

    def _load_training_state(self, folder: Path) -> None:
        with checkpoint.reading(folder):
            state = checkpoint.read(folder, checkpoint.TRAINING_STATE)
            if self.is_fsdp_enabled:
                options = StateDictOptions(full_state_dict=True, cpu_offload=True)
                set_optimizer_state_dict(
                    self.model, self.optimizer, state["optimizer"], options=options
                )
            else:
                self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["scheduler"])
            self.args.eval_on_start = bool(state["validation_is_due"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._load_random_state(Path(checkpoint))

    def _load_random_state(self, folder: Path) -> None:
        with checkpoint.reading(folder):
            checkpoint.set_random_state(checkpoint.read(folder, self._random_name()))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Do nothing, as in `_save_scaler`."""

    def _random_name(self) -> str:
        return f"random_state_{self.args.process_index}"

    def _sharded_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return weights and optimizer gathered from all processes; empty in all but the first."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(self.model, options=options)
        return weights, get_optimizer_state_dict(self.model, self.optimizer, options=options)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of all validation answer tokens.

        Draws no random numbers, so that it does not change training.
        """
        if self._validated is not None and self._validated[0] == self.state.global_step:
            return self._validated[1]  # the last step may be due twice
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        size = self.args.per_device_eval_batch_size
        model.eval()
        try:
            metrics = self._measure(model, size)
        finally:
            model.train()
        self._validated = (self.state.global_step, metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _measure(self, model: Any, size: int) -> dict[str, float]:
        """Return loss, tokens and accuracy of the validation rows, in micro-batches of `size`.

        Raises:
            ValidationStopped: the run must stop.
        """
        data = self.eval_dataset
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        stride = size * self.args.world_size
        # all processes have the same number of batches: the last ones may be blank
        for start in range(0, len(data), stride):
            if self._must_stop():
                raise ValidationStopped
            first = start + self.args.process_index * size
            rows = [data[index] for index in range(first, first + size)]
            batch = self._prepare_inputs(self._collate(rows))
            labels = batch.pop("labels")
            loss = loss_sum(model(**batch).logits, labels)
            tokens = (labels != IGNORE_INDEX).sum()
            total += torch.stack([loss, tokens]).double()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(total)
        metrics = {"eval_loss": (total[0] / total[1]).item(), "eval_tokens": int(total[1])}
        return metrics if self.accuracy is None else metrics | self.accuracy(model)


class EarlyStopping(EarlyStoppingCallback):
    """Stop after `patience` validations without improvement, counted across resumptions."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **options: Any
    ) -> None:
        """Restore the count from the checkpoint."""
        super().on_train_begin(args, state, control, **options)
        stored = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(stored, dict):  # from a checkpoint; otherwise this object's own entry
            self.early_stopping_patience_counter = stored["attributes"][
                "early_stopping_patience_counter"
            ]


def _mean_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int
) -> torch.Tensor:
    """Return a micro-batch's contribution to the mean loss.

    Args:
        outputs: the model's, with logits.
        labels: token ids, with IGNORE_INDEX outside answers.
        num_items_in_batch: answer tokens of the accumulated batch.
    """
    return loss_sum(outputs.logits, labels) / num_items_in_batch
