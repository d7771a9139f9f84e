"""Answers to conversations, which `galen judge` scores against a rubric: requests and samples."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.backends.base import Backend
from evaluation.backends.encoding import Generated
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import generated_answers as answer_metrics
from evaluation.metrics import intervals
from evaluation.metrics.intervals import Estimate
from evaluation.prompts.template import Prompt
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import rubric_reader
from evaluation.question_sets.rubric_reader import Message, RubricConversation
from evaluation.scoring import generated_answers
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from evaluation.scoring.results_schema import AnsweredConversation
from evaluation.scoring.task_type import Job, Sample, Samples, TaskType
from evaluation.tasks.rubric import RubricTask

_PLAIN_STOP = "\n\nUser:"
"""Where a model without a chat template goes on with the conversation."""


class Rubric(TaskType[RubricTask]):
    """Answers to conversations; their scores come from a judge, later."""

    name = "rubric"
    unit = "conversations"
    primary_metric = "answered"
    lower_is_better = False
    compared_key = "answered"
    uses_protocol = True
    sample_schema = AnsweredConversation

    def input_files(self, task: RubricTask, data: Path) -> list[Path]:
        """Return the files of conversations."""
        return task.files(data)

    def read_samples(self, task: RubricTask, data: Path, limit: int | None) -> list[Any]:
        """Read the conversations."""
        return task.conversations(data)

    def limited(self, samples: list[Any], limit: int | None) -> list[Any]:
        """Return at most `limit` conversations."""
        return rubric_reader.sample(samples, limit)

    def runs(self, task: RubricTask, protocol: Protocol) -> list[int]:
        """Return the only run."""
        return [0]

    def few_shot(
        self, name: str, task: RubricTask, data: Path, protocol: Protocol, samples: list[Any]
    ) -> dict[int, FewShotExamples]:
        """Return none: conversations have no few-shot examples."""
        return {0: {}}

    def generates(self, protocol: Protocol) -> bool:
        """Return True: answers are generated under every protocol."""
        return True

    def job(
        self,
        name: str,
        task: RubricTask,
        samples: Sequence[RubricConversation],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return a request for each conversation."""
        settings = _settings(task, protocol, bool(conversation.template))
        prompts = [prompt(conversation, item.messages) for item in samples]

        def to_sample(
            item: RubricConversation,
            used: Protocol,
            outputs: list[Generated],
            asked: Conversation,
            starts_open: bool,
        ) -> Sample:
            return answered_sample(item, used, outputs, asked, starts_open)

        return generated_answers.job(
            name, samples, prompts, settings, run, backend, conversation, to_sample
        )

    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return how many answers there are, and their length."""
        estimates = {
            "answered": self.estimate(by_run),
            **answer_metrics.length_estimates(by_run),
        }
        metrics = {name: estimate.as_dict() for name, estimate in estimates.items()}
        return {"metrics": metrics, "interval": "95 %, over conversations"}

    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the fraction of answers that are not empty."""
        values = itertools.chain.from_iterable(by_run)
        return intervals.fraction([sample["answered"] for sample in values])

    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the difference of the fractions of answers that are not empty."""
        return intervals.accuracy_difference(
            [sample["answered"] for sample in first.values()],
            [second[id_]["answered"] for id_ in first],
        )


def prompt(conversation: Conversation, messages: Sequence[Message]) -> Prompt:
    """Return a conversation as the model reads it, up to where its answer begins.

    A model without a chat template gets the roles as words.

    Raises:
        DataError: the chat template refuses the conversation.
    """
    turns = list(messages)
    if conversation.system_prompt:
        system = conversation.system_prompt
        if turns[0]["role"] == "system":
            system = f"{system}\n\n{turns.pop(0)['content']}"
        turns.insert(0, {"role": "system", "content": system})
    if conversation.template:
        return Prompt(conversation.render(turns), {}, target_delimiter="", is_conversation=True)
    lines = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return Prompt("\n\n".join([*lines, "Assistant:"]), {})


def _settings(task: RubricTask, protocol: Protocol, is_chat: bool) -> Protocol:
    """Return the protocol under which the answers are generated."""
    if protocol.scoring != "generation":
        protocol = generated_answers.greedy(protocol)
    return dataclasses.replace(
        protocol,
        max_new_tokens=max(protocol.max_new_tokens, task.max_new_tokens),
        stop=() if is_chat else (_PLAIN_STOP,),
        guided_decoding=False,
    )


def answered_sample(
    item: RubricConversation,
    protocol: Protocol,
    outputs: list[Generated],
    conversation: Conversation,
    starts_open: bool,
) -> Sample:
    """Return a conversation's sample: its answers without the thinking.

    Thinking that was cut off leaves an empty answer.
    """
    texts, counts = generated_answers.without_thinking(outputs, protocol, conversation, starts_open)
    truncated = list(counts.pop("truncated_thinking", [False] * len(outputs)))
    answers = []
    for index, text in enumerate(texts):
        answer, is_cut_off = strip_thinking(text)
        truncated[index] = truncated[index] or is_cut_off
        answers.append("" if truncated[index] else answer.strip())
    return {
        "id": item.id,
        "answers": answers,
        "answered": sum(map(bool, answers)) / len(answers),
        "outputs": [output.text for output in outputs],
        "num_tokens": [output.num_tokens for output in outputs],
        "reached_limit": [not output.finished for output in outputs],
        "truncated_thinking": truncated,
        **counts,
    }
