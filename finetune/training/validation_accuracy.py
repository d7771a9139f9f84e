"""Accuracy of the model in training on validation questions, by the scoring of `evaluation/`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from evaluation.backends import encoding
from evaluation.backends.base import Batching
from evaluation.backends.transformers_backend import TransformersBackend
from evaluation.prompts.registry import get_template
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import Question
from evaluation.scoring import multiple_choice
from finetune.data.sample import Item
from finetune.training.stopping import Stopping, ValidationStopped


class ValidationAccuracy:
    """Scores validation questions as `evaluation/run.py` would, divided among the processes.

    Args:
        items: questions that `can_score`.
        tokenizer: the model's.
        options: the Trainer's, which know device and processes.
        stopping: asked after each batch whether to break off.
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Any, options: Any, stopping: Stopping
    ) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.stopping = stopping
        self.questions = [
            (item.record, item.template) for item in items if isinstance(item.record, Question)
        ]

    @staticmethod
    def can_score(item: Item) -> bool:
        """Return whether option likelihoods answer an item: one letter or word, no rationale."""
        if not isinstance(item.record, Question) or len(item.record.answers) != 1:
            return False
        prompt = get_template(item.template)(item.record)
        return prompt.target == prompt.continuations[item.record.answer]

    def __call__(self, model: Any) -> dict[str, float]:
        """Return `{"eval_accuracy"}` of the model.

        Raises:
            ValidationStopped: a process was asked to stop.
        """
        # with FSDP all processes compute each batch together
        num_parts = 1 if self.options.fsdp else self.options.world_size
        part = self.options.process_index if num_parts > 1 else 0
        backend = TransformersBackend.from_model(model, self.tokenizer, self.options.device)
        stop = self._must_stop if self.options.fsdp else self.stopping.asked_here
        right = sum(correct(backend, self.questions[part::num_parts], stop))
        if self._must_stop():
            raise ValidationStopped
        total = torch.tensor(right, device=self.options.device)
        if num_parts > 1:
            torch.distributed.all_reduce(total)
        return {"eval_accuracy": int(total) / len(self.questions)}

    def _must_stop(self) -> bool:
        return self.stopping.agreed(self.options.device)


def correct(
    backend: TransformersBackend,
    questions: Sequence[tuple[Question, str]],
    stop: Callable[[], bool] = lambda: False,
    scored: Callable[[int], object] = lambda count: None,
) -> list[int]:
    """Return 1 for each question whose likeliest option is right, else 0.

    Scored in its template as `evaluation/run.py` does it; ends after a batch where `stop` says so;
    `scored` is called with the number of questions of each batch.
    """
    prompted = [get_template(template)(item) for item, template in questions]
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompted]
    is_correct = [0] * len(questions)
    for batch in backend.log_likelihoods(requests, Batching(backend.batch_tokens)):
        for index, values in batch:
            item, template = questions[index]
            is_correct[index] = int(
                multiple_choice.likelihood_sample(
                    item, prompted[index], Protocol(template), values
                )["correct"]
            )
        scored(len(batch))
        if stop():
            break
    return is_correct
