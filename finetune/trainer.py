"""Hugging Face's Trainer with a loss on answer tokens, weighted by token over the whole batch in training and validation."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerControl, TrainingArguments

from finetune.batch import collate, loss_sum
from finetune.recipe import Training
from finetune.run_log import RunLog
from finetune.sample import IGNORED, Sample


class Samples(Dataset[Sample]):
    """Samples as PyTorch's data loader wants them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> Sample:
        return self.samples[place]


class AnswerTrainer(Trainer):
    """A Trainer whose losses are means over answer tokens, however these fall into micro-batches."""

    def __init__(
        self, network: Any, train: Sequence[Sample], validation: Sequence[Sample], options: TrainingArguments, log: RunLog
    ) -> None:
        super().__init__(
            model=network,
            args=options,
            data_collator=collate,
            train_dataset=Samples(train),
            eval_dataset=Samples(validation),
            compute_loss_func=_mean_loss,
            callbacks=[log],
        )
        self.remove_callback(PrinterCallback)
        self._validated: tuple[int, dict[str, float]] | None = None

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of all validation answer tokens. Draws no random numbers, so that training goes on as without it."""
        if self._validated is not None and self._validated[0] == self.state.global_step:
            return self._validated[1]  # the last step is validated by its number and as the last
        network, samples = self.model, self.eval_dataset.samples
        network.eval()
        total, tokens = 0.0, 0
        for start in range(0, len(samples), self.args.per_device_eval_batch_size):
            batch = self._prepare_inputs(collate(samples[start : start + self.args.per_device_eval_batch_size]))
            labels = batch.pop("labels")
            total += loss_sum(network(**batch).logits, labels).item()
            tokens += int((labels != IGNORED).sum())
        network.train()
        metrics = {"eval_loss": total / tokens, "eval_tokens": tokens}
        self._validated = (self.state.global_step, metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def total_steps(training: Training, samples: int) -> int:
    """Return the number of optimizer steps: as given, or for the epochs (an epoch's last step may be smaller)."""
    if training.max_steps is not None:
        return training.max_steps
    assert training.epochs is not None  # the recipe has one of the two
    per_epoch = math.ceil(math.ceil(samples / training.micro_batch_size) / training.gradient_accumulation)
    return max(math.ceil(training.epochs * per_epoch), 1)


def arguments(training: Training, folder: Path, steps: int, validate: bool, resumed: bool) -> TrainingArguments:
    """Return the Trainer's options for a recipe; checkpoints go to `folder`."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        max_steps=steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant_with_warmup" if training.schedule == "constant" else training.schedule,
        warmup_steps=math.ceil(training.warmup_ratio * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        data_seed=training.seed,
        save_strategy="steps",
        save_steps=training.save_interval,
        save_total_limit=2,
        eval_strategy="steps" if validate else "no",
        eval_steps=training.validation_interval,
        eval_on_start=validate and not resumed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must be seen, not averaged away
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, and remove those that a kill left half-written."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # the last file that is written
            whole.append(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """Return a micro-batch's part of the mean over all `num_items_in_batch` answer tokens of the accumulated batch."""
    return loss_sum(outputs.logits, labels) / num_items_in_batch
