"""Accuracy of the network in training on validation questions, by the scoring of `evaluation/`."""

from collections.abc import Sequence
from typing import Any

import torch

from evaluation import encoding, metrics, prompts, scoring
from evaluation.backend_transformers import TransformersBackend
from evaluation.question import Question
from finetune.sample import Item

MAX_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Padded tokens that are scored at once, as `evaluation/run.py` takes them."""


class ValidationAccuracy:
    """Scores validation questions as `evaluation/run.py` would, each process its share.

    Args:
        items: questions that `can_score`.
        tokenizer: the model's.
        options: the Trainer's, which know device and processes.
    """

    def __init__(self, items: Sequence[Item], tokenizer: Any, options: Any) -> None:
        self.options, self.tokenizer = options, tokenizer
        self.questions = [item.record for item in items if isinstance(item.record, Question)]
        self.requests = [encoding.encode_prompt(tokenizer, prompts.form(item.form)(item.record)) for item in items]

    @staticmethod
    def can_score(item: Item) -> bool:
        """Say whether likelihoods of the options answer this item: a question whose answer is one letter or word, without rationale."""
        if not isinstance(item.record, Question) or len(item.record.answers) != 1:
            return False
        prompt = prompts.form(item.form)(item.record)
        return prompt.target == prompt.continuations[item.record.answer]

    def __call__(self, network: Any) -> dict[str, float]:
        """Return `{"eval_accuracy"}` of the network as it is."""
        shares = 1 if self.options.fsdp else self.options.world_size  # with FSDP all processes compute each batch together
        share = self.options.process_index if shares > 1 else 0
        places = list(range(share, len(self.questions), shares))
        backend = TransformersBackend.of_network(network, self.tokenizer, self.options.device)
        correct = 0
        for batch in backend.log_likelihoods([self.requests[place] for place in places], MAX_BATCH_TOKENS[self.options.device.type]):
            correct += sum(scoring.choice_item(self.questions[places[place]], values)["correct"] for place, values in batch)
        total = torch.tensor(correct, device=self.options.device)
        if shares > 1:
            torch.distributed.all_reduce(total)
        right = int(total)
        return {"eval_accuracy": metrics.accuracy([1] * right + [0] * (len(self.questions) - right)).value}
