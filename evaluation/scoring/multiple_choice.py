"""Multiple choice: requests for questions under a protocol, and scored samples from replies."""

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend, TopTokensBackend
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import aggregate
from evaluation.metrics.intervals import Estimate
from evaluation.prompts.template import Prompt, PromptTemplate
from evaluation.protocols import few_shot, task_settings
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import Question, sample_questions
from evaluation.scoring import generated_answers, top_tokens
from evaluation.scoring.results_schema import ScoredQuestion
from evaluation.scoring.task_type import (
    Job,
    Sample,
    Samples,
    TaskType,
    correct_difference,
    sample_of,
)
from evaluation.tasks.task import MultipleChoiceTask
from galen.errors import DataError

logger = logging.getLogger(__name__)


class MultipleChoice(TaskType[MultipleChoiceTask]):
    """Accuracy on questions with lettered options."""

    name = "multiple_choice"
    unit = "questions"
    primary_metric = "accuracy"
    lower_is_better = False
    compared_key = "correct"
    uses_protocol = True
    sample_schema = ScoredQuestion

    def input_files(self, task: MultipleChoiceTask, data: Path) -> list[Path]:
        """Return the files of questions, ids and few-shot examples."""
        files = task.files(data, task.file)
        named = [data / name for name in (task.ids, task.fewshot_examples) if name]
        for path in named:
            if not path.is_file():
                raise DataError(f"there is no file {path}")
        if task.fewshot_file and not task.fewshot_examples:
            files += task.files(data, task.fewshot_file)
        return list(dict.fromkeys(files + named))

    def read_samples(self, task: MultipleChoiceTask, data: Path, limit: int | None) -> list[Any]:
        """Read all questions."""
        return task.questions(data)

    def limited(self, samples: list[Any], limit: int | None) -> list[Any]:
        """Return at most `limit` questions."""
        return sample_questions(samples, limit)

    def runs(self, task: MultipleChoiceTask, protocol: Protocol) -> list[int]:
        """Return one run for each set of few-shot examples."""
        settings = task_settings.settings(task, protocol)
        # runs with the same few-shot examples would be the same
        takes_first = task.fewshot_sampler and task_settings.takes_first(task, protocol)
        if task.fewshot_examples or takes_first or not settings.num_fewshot:
            return list(settings.fewshot_seeds[:1])
        return list(settings.fewshot_seeds)

    def few_shot(
        self,
        name: str,
        task: MultipleChoiceTask,
        data: Path,
        protocol: Protocol,
        samples: list[Any],
    ) -> dict[int, FewShotExamples]:
        """Return the few-shot examples of each run; checks that the task's prompt fits them."""
        ignored = task_settings.ignored_keys(task, protocol)
        if ignored:
            logger.warning(
                f"task {name}: this protocol has its own wording and rules; ignored keys of the"
                f" task: {', '.join(ignored)}"
            )
        runs = self.runs(task, protocol)
        examples = few_shot.choose(name, task, data, protocol, runs, samples)
        if task.prompt is not None:
            template = task_settings.template(task, protocol)
            shown = [item for by_subject in examples.values() for item in by_subject.values()]
            for question in itertools.chain(samples, *shown):
                template(question)
            _warn_of_hidden_options(name, samples, template)
        return examples

    def generates(self, protocol: Protocol) -> bool:
        """Return whether the protocol generates answers."""
        return protocol.scoring == "generation"

    def options_template(
        self, task: MultipleChoiceTask, protocol: Protocol
    ) -> PromptTemplate | None:
        """Return the task's prompt template."""
        return task_settings.template(task, protocol)

    def job(
        self,
        name: str,
        task: MultipleChoiceTask,
        samples: Sequence[Question],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return the requests of one run: prompts rendered and encoded."""
        template = task_settings.template(task, protocol)
        settings = task_settings.settings(task, protocol)
        return job(name, list(samples), examples, settings, template, run, backend, conversation)

    def settings(self, task: MultipleChoiceTask, protocol: Protocol) -> dict[str, Any]:
        """Return the task's own wording, few-shot rule and metric."""
        return task_settings.used_keys(task, protocol)

    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return accuracy and further metrics; `chance` is guessing a single option."""
        single = [question for question in samples if len(question.answers) == 1]
        chance = sum(1 / len(question.options) for question in single) / len(samples)
        return {**aggregate.choice_entry(by_run, runs), "chance": chance}

    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the accuracy."""
        return aggregate.accuracy(by_run)

    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the difference of the accuracies."""
        return correct_difference(first, second)

    def mismatch(self, first: Samples, second: Samples) -> str:
        """Return why accuracies are not comparable: the answers differ."""
        if all(sample.get("answer") == second[id_].get("answer") for id_, sample in first.items()):
            return ""
        return "were scored on questions with different answers; score both on the same data"


def _warn_of_hidden_options(
    name: str, questions: Sequence[Question], template: PromptTemplate
) -> None:
    """Warn of a task whose answers are labels of options that its prompt does not show."""
    for question in questions:
        prompt = template(question)
        answers = [text.strip() for text in prompt.continuations.values()]
        is_by_label = answers == list(question.options)
        if not is_by_label or any(
            text.strip() in prompt.text for text in question.options.values()
        ):
            return
    logger.warning(
        f"task {name}: the answers are the options' labels, but key 'prompt.doc_to_text' shows none"
        " of the options: show them, or set doc_to_choice to '{{ choices }}'"
    )


def job(
    name: str,
    questions: list[Question],
    examples: FewShotExamples,
    protocol: Protocol,
    template: PromptTemplate,
    run: int,
    backend: Backend,
    conversation: Conversation,
) -> Job:
    """Return the job of one run: prompts rendered and encoded.

    Raises:
        DataError: the tokenizer has no tokens for an answer.
    """
    prompts = [
        conversation.prompt(template(question, examples.get(question.subject) or examples[""]))
        for question in questions
    ]
    texts = [prompt.text for prompt in prompts]
    if protocol.scoring == "generation":
        return generated_answers.job(name, questions, prompts, protocol, run, backend, conversation)
    if protocol.scoring == "letter" and isinstance(backend, TopTokensBackend):
        return top_tokens.job(questions, prompts, backend)
    if protocol.scoring == "letter":
        return _letter_job(name, questions, prompts, backend, texts)
    encoded = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts]

    def from_values(index: int, values: list[float]) -> Sample:
        return likelihood_sample(questions[index], prompts[index], protocol, values)

    requests, truncated = _truncate(name, encoded, backend.context_length)
    return Job(backend.log_likelihoods, requests, from_values, texts, truncated=truncated)


def likelihood_sample(
    question: Question, prompt: Prompt, protocol: Protocol, values: list[float]
) -> Sample:
    """Return a question's sample from its options' log-likelihoods (nats); ties go to the first.

    It has the result of each metric of `LikelihoodMetric`. As in lm-evaluation-harness an empty
    option is never the likeliest per character or byte; `empty_option` marks such samples.
    """
    logprobs = dict(zip(question.options, finite(values, f"question {question.id}"), strict=True))
    choices = {
        label: text.removeprefix(prompt.target_delimiter)
        for label, text in prompt.continuations.items()
    }
    predictions = {
        "acc": max(logprobs, key=logprobs.__getitem__),
        "acc_norm": _likeliest(logprobs, {label: len(text) for label, text in choices.items()}),
        "acc_bytes": _likeliest(
            logprobs, {label: len(text.encode()) for label, text in choices.items()}
        ),
    }
    sample = sample_of(question, predictions[protocol.metric])
    sample["logprobs"] = logprobs
    if protocol.metric == "acc":  # the same as `correct`
        del predictions["acc"]
    for metric, prediction in predictions.items():
        sample[f"correct_{metric}"] = prediction == question.answer
    if not all(choices.values()):
        sample["empty_option"] = True
    return sample


def _likeliest(logprobs: dict[str, float], lengths: dict[str, int]) -> str:
    """Return the option with the highest log-likelihood per unit of length."""
    normalized = {
        label: value / lengths[label] if lengths[label] else -math.inf
        for label, value in logprobs.items()
    }
    return max(normalized, key=normalized.__getitem__)


def letter_sample(
    question: Question,
    letters: Sequence[str],
    values: list[float],
    top: int,
    tokens: list[int],
    top_text: str,
) -> Sample:
    """Return a question's sample from its next token.

    By the published rule the answer is the top token of the vocabulary.

    Args:
        question: the question.
        letters: the option that each value represents; an option's value is the highest of its
            tokens.
        values: log-probability of each token.
        top: the most likely token of the vocabulary.
        tokens: the token of each value.
        top_text: the most likely token as text.
    """
    logprobs: dict[str, float] = {}
    for letter, value in zip(letters, finite(values, f"question {question.id}"), strict=True):
        logprobs[letter] = max(value, logprobs.get(letter, value))
    logprobs = {letter: logprobs[letter] for letter in question.options}
    likeliest = max(logprobs, key=lambda letter: logprobs[letter])
    letter_of = dict(zip(reversed(tokens), reversed(letters), strict=True))
    return sample_of(question, letter_of.get(top)) | {
        "logprobs": logprobs,
        "top": top_text,
        "argmax": likeliest,
        "correct_argmax": likeliest == question.answer,
    }


def _letter_job(
    name: str,
    questions: list[Question],
    prompts: list[Prompt],
    backend: Backend,
    texts: list[str],
) -> Job:
    """Return the job that reads the option letter off the next token."""
    answers: set[str] = set()
    for prompt in prompts:
        answers.update(text.strip() for text in prompt.continuations.values())
    tokens = encoding.tokens_by_text(backend.tokenizer, answers)
    encoded: list[encoding.Request] = []
    letters: list[list[str]] = []
    for prompt in prompts:
        request, of_request = encoding.encode_letters(backend.tokenizer, prompt, tokens)
        encoded.append(request)
        letters.append(of_request)
    requests, truncated = _truncate(name, encoded, backend.context_length)

    def build(index: int, values: list[float], top: int) -> Sample:
        ids = [continuation[0] for continuation in requests[index].continuations]
        top_text = backend.tokenizer.decode([top])
        return letter_sample(questions[index], letters[index], values, top, ids, top_text)

    return Job(backend.next_tokens, requests, build, texts, truncated=truncated)


def _truncate(
    name: str, requests: list[encoding.Request], length: int | None
) -> tuple[list[encoding.Request], frozenset[int]]:
    """Return requests that fit the model's context, and the indices of the truncated ones."""
    if length is None:
        return requests, frozenset()
    too_long = frozenset(
        index for index, request in enumerate(requests) if request.input_length > length
    )
    if too_long:
        logger.warning(
            f"{name}: {len(too_long)} of {len(requests)} prompts are longer than the model's"
            f" {length} tokens; truncated on the left"
        )
    return [encoding.truncate_left(request, length) for request in requests], too_long


def finite(values: list[float], of: str) -> list[float]:
    """Return log-likelihoods unchanged.

    Raises:
        DataError: one is infinite or not a number; with `of`, the sample.
    """
    if not all(math.isfinite(value) for value in values):
        raise DataError(
            f"{of}: the model returns a log-likelihood that is not finite; its weights are damaged,"
            " or try --dtype float32"
        )
    return values
