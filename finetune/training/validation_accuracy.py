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
    """Scores validation questions as `evaluation/run.py` would, each process its share.

    Args:
        items: questions that `can_score`.
        tokenizer: the model's.
        options: the Trainer's, which know device and processes.
        stopping: asked after each batch whether to break off.
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Any, options: Any, stopping: Stopping
    ) -> None:
        self.options, self.tokenizer, self.stopping = options, tokenizer, stopping
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
        """Return `{"eval_accuracy"}` of the model as it is.

        Raises:
            ValidationStopped: a process was asked to stop.
        """
        # with FSDP all processes compute each batch together
        shares = 1 if self.options.fsdp else self.options.world_size
        share = self.options.process_index if shares > 1 else 0
        backend = TransformersBackend.from_model(model, self.tokenizer, self.options.device)
        stop = self._asked_together if self.options.fsdp else self.stopping.asked_here
        right = sum(correct(backend, self.questions[share::shares], stop))
        if self._asked_together():
            raise ValidationStopped
        total = torch.tensor(right, device=self.options.device)
        if shares > 1:
            torch.distributed.all_reduce(total)
        return {"eval_accuracy": int(total) / len(self.questions)}

    def _asked_together(self) -> bool:
        return self.stopping.agreed(self.options.device)


def correct(
    backend: TransformersBackend,
    questions: Sequence[tuple[Question, str]],
    stop: Callable[[], bool] = lambda: False,
    scored: Callable[[int], object] = lambda count: None,
) -> list[int]:
    """Return 1 for each question whose likeliest option is right, else 0.

    Scored in its template as `evaluation/run.py` does it; ends after a batch where `stop` says so;
    `scored` is told how many questions a batch had.
    """
    prompted = [get_template(template)(item) for item, template in questions]
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompted]
    found = [0] * len(questions)
    for batch in backend.log_likelihoods(requests, Batching(backend.batch_tokens)):
        for place, values in batch:
            item, template = questions[place]
            found[place] = int(
                multiple_choice.likelihood_sample(
                    item, prompted[place], Protocol(template), values
                )["correct"]
            )
        scored(len(batch))
        if stop():
            break
    return found
