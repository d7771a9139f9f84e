"""Generated answers scored against a reference: requests, and scored samples from the texts."""

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.backends.base import Backend
from evaluation.backends.encoding import Generated
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import aggregate
from evaluation.metrics.intervals import Estimate
from evaluation.protocols import few_shot
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import sample_questions
from evaluation.question_sets.reference_reader import ReferenceQuestion
from evaluation.scoring import answer_scores, generated_answers
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from evaluation.scoring.results_schema import ScoredQuestion
from evaluation.scoring.task_type import Job, Sample, Samples, TaskType, correct_difference
from evaluation.tasks.generation import GenerationTask
from galen import recipe
from galen.errors import DataError

_LOCATION = ("kind", "file", "fields", "test_split", "fewshot_source", "fewshot_split", "subjects")
"""Keys of a task that say which questions it has."""


class Generation(TaskType[GenerationTask]):
    """Generated answers, scored against a reference; the metric is the task's: see `of_entry`.

    The wording is the task's under every protocol; chat template, thinking and sampling are the
    protocol's. Protocols that do not generate decode greedily.
    """

    name = "generation"
    unit = "questions"
    primary_metric = ""
    lower_is_better = False
    compared_key = "correct"
    uses_protocol = True
    sample_schema = ScoredQuestion

    def of_entry(self, entry: Mapping[str, Any]) -> "Generation":
        """Return the type with the metric of a task's entry."""
        of_task = copy.copy(self)
        of_task.primary_metric = str(entry.get("primary_metric"))
        return of_task

    def input_files(self, task: GenerationTask, data: Path) -> list[Path]:
        """Return the files of questions and few-shot examples."""
        return task.files(data)

    def read_samples(self, task: GenerationTask, data: Path, limit: int | None) -> list[Any]:
        """Read all questions, and check their references."""
        questions = task.questions(data)
        for question in questions:
            assert isinstance(question, ReferenceQuestion)
            answer_scores.check(task, question)
        return questions

    def limited(self, samples: list[Any], limit: int | None) -> list[Any]:
        """Return at most `limit` questions."""
        return sample_questions(samples, limit)

    def runs(self, task: GenerationTask, protocol: Protocol) -> list[int]:
        """Return one run for each set of few-shot examples."""
        if task.num_fewshot and task.fewshot_sampler == "random":
            return list(protocol.fewshot_seeds)
        return list(protocol.fewshot_seeds[:1])

    def few_shot(
        self,
        name: str,
        task: GenerationTask,
        data: Path,
        protocol: Protocol,
        samples: list[Any],
    ) -> dict[int, FewShotExamples]:
        """Return the few-shot examples of each run; checks that the prompt fits all questions."""
        runs = self.runs(task, protocol)
        examples: dict[int, FewShotExamples] = {run: {"": []} for run in runs}
        if task.num_fewshot:
            scored = {(item.context, item.question) for item in samples}
            pool = [
                item
                for item in task.fewshot_candidates(data)
                if (item.context, item.question) not in scored
            ]
            if len(pool) < task.num_fewshot:
                raise DataError(
                    f"task {name}: {task.num_fewshot} few-shot examples are needed,"
                    f" {task.fewshot_file} holds {len(pool)} that are not scored"
                )
            for run in runs:
                drawn = pool
                if task.fewshot_sampler == "random":
                    drawn = few_shot.drawn(pool, run, task.num_fewshot)
                examples[run] = {"": drawn[: task.num_fewshot]}
        for question in samples:
            task.prompt.render(question, examples[runs[0]][""])
        return examples

    def generates(self, protocol: Protocol) -> bool:
        """Return True: answers are generated under every protocol."""
        return True

    def job(
        self,
        name: str,
        task: GenerationTask,
        samples: Sequence[ReferenceQuestion],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return the requests of one run."""
        settings = generation_settings(task, protocol, bool(conversation.template))
        prompts = [
            conversation.prompt(task.prompt.render(question, examples[""])) for question in samples
        ]

        def to_sample(
            question: ReferenceQuestion,
            used: Protocol,
            outputs: list[Generated],
            asked: Conversation,
            starts_open: bool,
        ) -> Sample:
            return generation_sample(task, question, used, outputs, asked, starts_open)

        return generated_answers.job(
            name, list(samples), prompts, settings, run, backend, conversation, to_sample
        )

    def settings(self, task: GenerationTask, protocol: Protocol) -> dict[str, Any]:
        """Return the task's wording, metric and few-shot rule."""
        return {key: value for key, value in recipe.to_dict(task).items() if key not in _LOCATION}

    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return the metric and those of generated answers, also by subject and language."""
        metric = str(by_run[0][0]["metric"])
        return {"primary_metric": metric, **aggregate.reference_entry(by_run, runs, metric)}

    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the mean score."""
        return aggregate.mean_score(by_run)

    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the difference of the mean scores."""
        return correct_difference(first, second)

    def mismatch(self, first: Samples, second: Samples) -> str:
        """Return why scores are not comparable: the references or the metrics differ."""
        for id_, sample in first.items():
            if any(sample.get(key) != second[id_].get(key) for key in ("answer", "metric")):
                return "were scored on other references or by another metric; score both again"
        return ""


def generation_settings(task: GenerationTask, protocol: Protocol, is_chat: bool) -> Protocol:
    """Return the protocol under which answers to a task are generated.

    Args:
        task: with its stop strings and length.
        protocol: one that generates keeps its sampling, length and thinking.
        is_chat: whether a chat template renders the prompts.
    """
    stop = task.stop
    if stop is None:
        stop = [] if is_chat else [task.prompt.fewshot_delimiter]
    if protocol.scoring != "generation":
        protocol = dataclasses.replace(
            generated_answers.greedy(protocol), max_new_tokens=task.max_new_tokens
        )
    return dataclasses.replace(protocol, stop=tuple(filter(None, stop)), guided_decoding=False)


def generation_sample(
    task: GenerationTask,
    question: ReferenceQuestion,
    protocol: Protocol,
    outputs: list[Generated],
    conversation: Conversation | None = None,
    starts_open: bool = False,
) -> Sample:
    """Return a question's sample: the mean score of its answers.

    Args:
        task: its metric.
        question: the question with its references.
        protocol: stop strings, thinking.
        outputs: the answers.
        conversation: how the model was asked; None for a model without thinking.
        starts_open: whether the prompt already opened the thinking.
    """
    answers, counts = generated_answers.without_thinking(
        outputs, protocol, conversation, starts_open
    )
    scores = []
    truncated = list(counts.pop("truncated_thinking", [False] * len(outputs)))
    for index, text in enumerate(answers):
        answer, is_cut_off = strip_thinking(text)
        truncated[index] = truncated[index] or is_cut_off
        scored = answer_scores.UNPARSED
        if not truncated[index]:
            scored = answer_scores.score(task, question, answer, outputs[index].finished)
        scores.append(scored)
    sample: Sample = {
        "id": question.id,
        "metric": task.metric,
        "answer": question.answer,
        "prediction": next((item.extracted for item in scores if item.extracted), None),
        "correct": float(np.mean([item.score for item in scores])),
        "outputs": [output.text for output in outputs],
        "extracted_answers": [item.extracted for item in scores],
        "correct_answers": [item.score == 1 for item in scores],
        "num_tokens": [output.num_tokens for output in outputs],
        "reached_limit": [not output.finished for output in outputs],
        "truncated_thinking": truncated,
        **counts,
    }
    if task.metric == "f1":
        sample["exact_match"] = float(np.mean([bool(item.exact_match) for item in scores]))
    if len(question.references) > 1:
        text = "\n".join(question.references)
        sample["references_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    if question.subject not in ("", "en"):
        sample["subject"] = question.subject
    if question.language not in ("", "en"):
        sample["language"] = question.language
    return sample
