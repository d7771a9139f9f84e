"""A judge: a model behind any backend that is asked about criteria, and never twice the same.

Verdicts are in DIR/verdicts.jsonl, flushed one by one: an interrupted run resumes. The key of a
verdict is a hash of the question and of the repetition, so that answers with the same text, also of
other models, share it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend, Batching
from evaluation.backends.encoding import GenerationRequest, Request
from evaluation.backends.openai_backend import OpenAIBackend
from evaluation.backends.request_log import RequestLog
from evaluation.backends.sampling import Sampling
from evaluation.chat_models.conversation import Conversation
from evaluation.judging import verdicts
from evaluation.judging.verdicts import Question
from evaluation.prompts.template import Prompt
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from galen.errors import DataError
from galen.progress import Progress

logger = logging.getLogger(__name__)

VERDICTS = "verdicts.jsonl"
TRIES = 3
"""Questions until a reply has a verdict; the second and third are sampled."""
_RETRY_TEMPERATURE = 0.7
_ANSWERS = {"Yes": "Yes", "No": "No"}
REPEAT_TEMPERATURE = 1.0
"""Of repetitions after the first, which measure how far the judge agrees with itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer."""

    is_met: bool | None
    """None where no reply had a verdict."""
    explanation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """A model that is asked about criteria."""

    backend: Backend
    conversation: Conversation
    template: str
    """Wording of the question."""
    is_generated: bool
    """Whether verdicts are read from generated JSON, not from the likelihoods of Yes and No."""
    is_guided: bool
    """Whether the backend forces the JSON."""
    max_new_tokens: int
    log: RequestLog
    """The verdicts."""
    batch_tokens: int

    def verdicts(self, questions: Sequence[Question], repeat: int = 0) -> list[Verdict]:
        """Return the verdict on each question; asks those that are not known.

        Args:
            questions: what to judge.
            repeat: number of the repetition; those after the first are sampled.
        """
        keys = [self._key(question, repeat) for question in questions]
        missing = self._missing(questions, keys)
        ask = self._generate if self.is_generated else self._compare
        with Progress("judge", total=len(missing), unit="criteria") as progress:
            for attempt in range(TRIES if self.is_generated else 1):
                if missing:
                    missing = ask(missing, repeat, attempt, progress.update)
        return [self._verdict(key) for key in keys]

    def known(self, questions: Sequence[Question], repeat: int = 0) -> list[Verdict | None]:
        """Return the verdicts that are known already."""
        keys = [self._key(question, repeat) for question in questions]
        return [self._verdict(key) if key in self.log else None for key in keys]

    def estimate(self, questions: Sequence[Question], repeats: int = 1) -> str:
        """Return in words how much the judge will be asked."""
        missing = {
            key: question
            for repeat in range(repeats)
            for question in questions
            if (key := self._key(question, repeat)) not in self.log
        }
        if isinstance(self.backend, OpenAIBackend):
            requests = [self._request(item, 0, 0) for item in missing.values()]
            return self.backend.estimate(requests).text(self.backend.endpoint)
        return f"{len(missing):,} criteria to judge"

    def _missing(self, questions: Sequence[Question], keys: Sequence[str]) -> dict[str, Question]:
        """Return the questions without a verdict, those with the same text once."""
        pairs = zip(keys, questions, strict=True)
        return {key: question for key, question in pairs if key not in self.log}

    def _verdict(self, key: str) -> Verdict:
        reply = self.log.get(key)
        return Verdict(reply["is_met"], reply["explanation"])

    def _key(self, question: Question, repeat: int) -> str:
        content = f"{repeat if self.is_generated else 0}\n{question.text(self.template)}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def _generate(
        self,
        missing: dict[str, Question],
        repeat: int,
        attempt: int,
        update: Callable[[int], Any],
    ) -> dict[str, Question]:
        """Ask by generation; return the questions whose replies had no verdict."""
        keys = list(missing)
        requests = [self._request(question, repeat, attempt) for question in missing.values()]
        unparsed = {}
        for index, text in self._replies(requests):
            key = keys[index]
            answer, is_cut_off = strip_thinking(text)
            verdict = None if is_cut_off else verdicts.read_reply(answer)
            if verdict is None and attempt + 1 < TRIES:
                unparsed[key] = missing[key]
                continue
            reply = {"is_met": verdict, "explanation": verdicts.explanation(answer)[:2000]}
            self.log.append(key, reply, attempts=attempt + 1)
            update(1)
        if unparsed:
            logger.warning(f"{len(unparsed):,} replies of the judge have no verdict; asking again")
        return unparsed

    def _replies(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, str]]:
        batching = Batching(self.batch_tokens)
        for batch in self.backend.generate(requests, batching):
            for index, [generated] in batch:
                yield index, generated.text

    def _compare(
        self,
        missing: dict[str, Question],
        repeat: int,
        attempt: int,
        update: Callable[[int], Any],
    ) -> dict[str, Question]:
        """Ask by the likelihoods of Yes and No."""
        keys = list(missing)
        requests = [self._likelihood_request(question) for question in missing.values()]
        for batch in self.backend.log_likelihoods(requests, Batching(self.batch_tokens)):
            for index, [yes, no] in batch:
                detail = f"log-likelihood of Yes {yes:.3f}, of No {no:.3f}"
                self.log.append(keys[index], {"is_met": yes > no, "explanation": detail})
            update(len(batch))
        return {}

    def _prompt(self, question: Question) -> Prompt:
        prompt = Prompt(question.text(self.template), _ANSWERS, target_delimiter="")
        return self.conversation.prompt(prompt)

    def _request(self, question: Question, repeat: int, attempt: int) -> GenerationRequest:
        ids = encoding.encode_for_generation(self.backend.tokenizer, self._prompt(question))
        temperature = REPEAT_TEMPERATURE if repeat else 0.0
        if attempt:
            temperature = max(temperature, _RETRY_TEMPERATURE)
        length = self.backend.context_length
        if length is not None and len(ids) + self.max_new_tokens > length:
            raise DataError(
                f"a question to the judge has {len(ids):,} tokens; with --max-new-tokens"
                f" {self.max_new_tokens:,} that exceeds its context of {length:,}: use a judge with"
                " a longer one"
            )
        return GenerationRequest(
            ids,
            self.max_new_tokens,
            (),
            Sampling(temperature=temperature),
            (f"{repeat}\n{attempt}",),
            verdicts.SCHEMA if self.is_guided else "",
        )

    def _likelihood_request(self, question: Question) -> Request:
        request = encoding.encode_prompt(self.backend.tokenizer, self._prompt(question))
        length = self.backend.context_length
        if length is not None and request.input_length > length:
            raise DataError(
                f"a question to the judge has {request.input_length:,} tokens; its context has"
                f" {length:,}: use a judge with a longer one"
            )
        return request


def open_log(folder: Path) -> RequestLog:
    """Open the verdicts in a judge's folder.

    Raises:
        DataError: a line is damaged.
    """
    return RequestLog(folder / VERDICTS)
