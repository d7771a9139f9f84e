"""Option letters read from the likeliest next tokens, where a backend returns only these."""

from collections.abc import Mapping, Sequence

from evaluation.backends import encoding
from evaluation.backends.base import TopTokensBackend
from evaluation.backends.encoding import TopTokensRequest
from evaluation.prompts.template import Prompt
from evaluation.question_sets.question import Question
from evaluation.scoring.task_type import Job, Sample, sample_of


def job(questions: Sequence[Question], prompts: Sequence[Prompt], backend: TopTokensBackend) -> Job:
    """Return the job that reads the option letter off the next token."""
    requests = [
        TopTokensRequest(encoding.encode_for_generation(backend.tokenizer, prompt))
        for prompt in prompts
    ]

    def build(index: int, top: Sequence[tuple[str, float]]) -> Sample:
        return sample(questions[index], prompts[index].continuations, top)

    return Job(backend.top_tokens, requests, build, [prompt.text for prompt in prompts])


def sample(
    question: Question, continuations: Mapping[str, str], top: Sequence[tuple[str, float]]
) -> Sample:
    """Return a question's sample from the likeliest next tokens.

    The prediction is the likeliest token's option, as with all probabilities at hand. `logprobs`
    holds the options; it is left out if one of them is not among the tokens.

    Args:
        question: the question.
        continuations: each option's answer.
        top: tokens as text with their log-probabilities, the likeliest first.
    """
    label_of = {text.strip(): label for label, text in continuations.items()}
    logprobs: dict[str, float] = {}
    for text, value in top:
        answer = encoding.answer_of_token(text, label_of)
        if answer is not None:
            label = label_of[answer]
            logprobs[label] = max(value, logprobs.get(label, value))
    first = encoding.answer_of_token(top[0][0], label_of)
    likeliest = max(logprobs, key=lambda label: logprobs[label]) if logprobs else None
    result = sample_of(question, label_of[first] if first is not None else None) | {
        "top": top[0][0],
        "argmax": likeliest,
        "correct_argmax": likeliest == question.answer,
    }
    if len(logprobs) == len(question.options):
        result["logprobs"] = {label: logprobs[label] for label in question.options}
    return result
