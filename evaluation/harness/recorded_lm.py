"""Recorded responses as a model of lm-evaluation-harness."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM

from evaluation.chat_models.conversation import Conversation


class RecordedLM(LM):
    """Answers the harness' requests with recorded responses.

    Args:
        responses: by task and number of the document, the responses to its instances in order.
        conversation: how the model was asked; None where prompts are not needed.
    """

    def __init__(
        self,
        responses: Mapping[tuple[str, int], Sequence[Sequence[Any]]],
        conversation: Conversation | None,
    ) -> None:
        super().__init__()
        self._conversation = conversation
        self._queues: dict[tuple[str, int, str], list[Any]] = defaultdict(list)
        for (task, number), of_document in responses.items():
            for of_instance in of_document:
                self._queues[task, number, _request_type(of_instance[0])] += of_instance

    @property
    def tokenizer_name(self) -> str:
        """Empty: nothing is cached."""
        return ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the text of a prompt."""
        return render(self._conversation, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return recorded log-likelihoods."""
        return [tuple(response) for response in self._recorded(requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Return recorded log-likelihoods of texts."""
        return self._recorded(requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return recorded texts."""
        return self._recorded(requests)

    def _recorded(self, requests: list[Any]) -> list[Any]:
        return [
            self._queues[item.task_name, item.doc_id, item.request_type].pop(0) for item in requests
        ]


def render(
    conversation: Conversation | None, messages: list[dict[str, str]], open_answer: bool
) -> str:
    """Return a conversation as the text of a prompt; without a chat template its plain text."""
    if conversation is None or not conversation.template:
        return "".join(message["content"] for message in messages)
    return conversation.render(messages, open_answer)


def _request_type(response: Any) -> str:
    """Return the type of the request that a response answers."""
    if isinstance(response, str):
        return "generate_until"
    return "loglikelihood_rolling" if isinstance(response, float) else "loglikelihood"
