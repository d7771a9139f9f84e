"""A judge: a model behind any backend that is asked questions, and never the same one twice.

Replies are in DIR/replies.jsonl, flushed one by one: an interrupted run resumes. The key of a reply
is a hash of the question and of the repetition, so that answers with the same text, also of other
models, share it.
"""

import hashlib
import logging
import math
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
from evaluation.prompts.template import Prompt
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from galen.errors import DataError
from galen.progress import Progress

logger = logging.getLogger(__name__)

REPLIES = "replies.jsonl"
TRIES = 3
"""Requests until a reply can be read; the second and third are sampled."""
_RETRY_TEMPERATURE = 0.7
REPEAT_TEMPERATURE = 1.0
"""Of repetitions after the first, which measure how far the judge agrees with itself."""
_MAX_EXPLANATION = 2000
_ANSWERS = {"Yes": "Yes", "No": "No"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A judge's reply."""

    value: Any
    """Of JSON types; None where no reply could be read."""
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """How replies are written and read."""

    schema: str
    """JSON schema, for guided decoding."""
    read: Callable[[str], Any]
    """Returns the value in a reply; None where there is none."""
    explanation: Callable[[str], str]
    """Returns the explanation in a reply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """A model that is asked questions."""

    backend: Backend
    conversation: Conversation
    is_guided: bool
    """Whether the backend forces the JSON of generated replies."""
    max_new_tokens: int
    log: RequestLog
    """The replies."""
    batch_tokens: int

    def generate(
        self, questions: Sequence[str], reply_format: ReplyFormat, repeat: int = 0
    ) -> list[Reply]:
        """Return a generated reply to each question; asks those that are not known.

        Args:
            questions: complete messages to the judge.
            reply_format: of the replies.
            repeat: number of the repetition; those after the first are sampled.
        """
        keys = [_key(question, str(repeat)) for question in questions]
        missing = self._missing(questions, keys)
        with Progress("judge", total=len(missing), unit="questions") as progress:
            for attempt in range(TRIES):
                if missing:
                    missing = self._generated(
                        missing, reply_format, repeat, attempt, progress.update
                    )
        return [self._reply(key) for key in keys]

    def compare_yes_and_no(self, questions: Sequence[str]) -> list[Reply]:
        """Return for each question whether Yes is likelier than No as its answer."""
        keys = [_key(question, "yes_no") for question in questions]
        missing = self._missing(questions, keys)
        missing_keys = list(missing)
        requests = [self._likelihood_request(question) for question in missing.values()]
        batching = Batching(self.batch_tokens)
        with Progress("judge", total=len(missing), unit="questions") as progress:
            for batch in self.backend.log_likelihoods(requests, batching):
                for index, [yes, no] in batch:
                    detail = f"log-likelihood of Yes {yes:.3f}, of No {no:.3f}"
                    is_known = math.isfinite(yes) and math.isfinite(no)
                    value = {"value": yes > no if is_known else None, "explanation": detail}
                    self.log.append(missing_keys[index], value)
                progress.update(len(batch))
        return [self._reply(key) for key in keys]

    def check_lengths(self, questions: Sequence[str], is_generated: bool = True) -> None:
        """Check that all questions fit the judge's context, before the first is asked.

        Raises:
            DataError: one does not.
        """
        if self.backend.context_length is None:
            return
        for question in dict.fromkeys(questions):
            if is_generated:
                self._request(question, "", 0, 0)
            else:
                self._likelihood_request(question)

    def estimate(self, questions: Sequence[str], repeats: int | None) -> str:
        """Return in words how much the judge will be asked.

        Args:
            questions: complete messages to the judge.
            repeats: repetitions of generated replies; None for comparisons of Yes and No.
        """
        names = ["yes_no"] if repeats is None else [str(number) for number in range(repeats)]
        missing = {
            key: question
            for name in names
            for question in questions
            if (key := _key(question, name)) not in self.log
        }
        if isinstance(self.backend, OpenAIBackend):
            requests = [self._request(question, "", 0, 0) for question in missing.values()]
            return self.backend.estimate(requests).text(self.backend.endpoint)
        return f"{len(missing):,} questions"

    def _missing(self, questions: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
        """Return the questions without a reply, equal ones once."""
        pairs = zip(keys, questions, strict=True)
        return {key: question for key, question in pairs if key not in self.log}

    def _reply(self, key: str) -> Reply:
        reply = self.log.get(key)
        return Reply(reply["value"], reply["explanation"])

    def _generated(
        self,
        missing: dict[str, str],
        reply_format: ReplyFormat,
        repeat: int,
        attempt: int,
        update: Callable[[int], Any],
    ) -> dict[str, str]:
        """Ask once; return the questions whose replies cannot be read."""
        keys = list(missing)
        schema = reply_format.schema if self.is_guided else ""
        requests = [self._request(item, schema, repeat, attempt) for item in missing.values()]
        unread = {}
        for index, text in self._texts(requests):
            key = keys[index]
            answer, is_cut_off = strip_thinking(text)
            value = None if is_cut_off else reply_format.read(answer)
            if value is None and attempt + 1 < TRIES:
                unread[key] = missing[key]
                continue
            explanation = reply_format.explanation(answer)[:_MAX_EXPLANATION]
            reply = {"value": value, "explanation": explanation}
            self.log.append(key, reply, attempts=attempt + 1)
            update(1)
        if unread:
            logger.warning(f"{len(unread):,} replies of the judge cannot be read; asking again")
        return unread

    def _texts(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, str]]:
        for batch in self.backend.generate(requests, Batching(self.batch_tokens)):
            for index, [generated] in batch:
                yield index, generated.text

    def _prompt(self, question: str) -> Prompt:
        return self.conversation.prompt(Prompt(question, _ANSWERS, target_delimiter=""))

    def _request(self, question: str, schema: str, repeat: int, attempt: int) -> GenerationRequest:
        ids = encoding.encode_for_generation(self.backend.tokenizer, self._prompt(question))
        self._check_length(len(ids) + self.max_new_tokens)
        temperature = REPEAT_TEMPERATURE if repeat else 0.0
        if attempt:
            temperature = max(temperature, _RETRY_TEMPERATURE)
        return GenerationRequest(
            ids,
            self.max_new_tokens,
            (),
            Sampling(temperature=temperature),
            (f"{repeat}\n{attempt}",),
            schema,
        )

    def _likelihood_request(self, question: str) -> Request:
        request = encoding.encode_prompt(self.backend.tokenizer, self._prompt(question))
        self._check_length(request.input_length)
        return request

    def _check_length(self, tokens: int) -> None:
        length = self.backend.context_length
        if length is not None and tokens > length:
            raise DataError(
                f"a question to the judge and its reply have {tokens:,} tokens, the judge's context"
                f" has {length:,}: use another judge, or a smaller --max-new-tokens"
            )


def _key(question: str, repeat: str) -> str:
    return hashlib.sha256(f"{repeat}\n{question}".encode()).hexdigest()[:32]


def open_log(folder: Path) -> RequestLog:
    """Open the replies in a judge's folder.

    Raises:
        DataError: a line is damaged.
    """
    return RequestLog(folder / REPLIES)
