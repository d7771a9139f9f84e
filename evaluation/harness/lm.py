"""Galen's backends as models of lm-evaluation-harness.

`BackendLM(backend)` may also be given to `lm_eval.simple_evaluate(model=…)`.
"""

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evaluation.backends import encoding
from evaluation.backends.base import Backend, Batching
from evaluation.backends.encoding import Generated, GenerationRequest, Request
from evaluation.backends.openai_backend import OpenAIBackend
from evaluation.backends.sampling import Sampling
from evaluation.chat_models import thinking
from evaluation.chat_models.conversation import Conversation
from evaluation.harness import recorded_lm
from evaluation.harness.work import Cell, Responses, Work
from galen.errors import DataError

logger = logging.getLogger(__name__)

_DEFAULT_CONTEXT_LENGTH = 2048
_DEFAULT_MAX_NEW_TOKENS = 256
"""The harness' own defaults."""
_GENERATION_FACTOR = 8
"""Tokens of a generated batch per token of a scored one, where the user sets neither."""
_SUPPORTED = frozenset(
    ("do_sample", "max_gen_toks", "repetition_penalty", "temperature", "top_k", "top_p", "until")
)
"""Keys of a task's `generation_kwargs`."""


class BackendLM(TemplateLM):
    """A backend of Galen as a model of the harness; encodes as the harness' `hf` model does.

    Args:
        backend: tokenizer and model.
        name: the task in messages.
        conversation: how the model is asked; None: by plain text.
    """

    def __init__(
        self, backend: Backend, name: str = "lm_eval", conversation: Conversation | None = None
    ) -> None:
        super().__init__()
        self.galen_backend = backend
        self.tokenizer = backend.tokenizer
        self.conversation = conversation
        self.name = name
        self.max_length = backend.context_length or _DEFAULT_CONTEXT_LENGTH
        self.truncated: set[int] = set()
        """Indices of the documents of which a prompt was truncated on the left."""
        self.answers: dict[int, dict[str, list[Any]]] = {}
        """Length and end of the generated answers, as samples have them, by document."""

    @property
    def _is_endpoint(self) -> bool:
        """Return whether an endpoint has the model: it knows its context's length, Galen does not.

        Prompts are then sent in full; an endpoint refuses those that are too long.
        """
        return isinstance(self.galen_backend, OpenAIBackend)

    @property
    def eot_token_id(self) -> int:
        """The id of the EOS token."""
        return self._special_id(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The id of the token before an empty context: BOS, or EOS without one."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else self._special_id(bos)

    def _special_id(self, id_: int | None) -> int:
        """Return an id.

        Raises:
            DataError: the tokenizer does not have it.
        """
        if id_ is None:
            raise DataError(
                f"{self.name}: a text without a context begins after the tokenizer's BOS or EOS"
                " token, but it has neither; at an endpoint, give the model's tokenizer with"
                " --tokenizer"
            )
        return int(id_)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, by which the harness caches requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of a text; with leading special tokens unless told otherwise."""
        if add_special_tokens is False:
            ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False, verbose=False)
            return ids
        return encoding.encode_text(self.tokenizer, string)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the text of a prompt."""
        return recorded_lm.render(self.conversation, chat_history, add_generation_prompt)

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return log-likelihood, and whether greedy decoding gives the text, of each request."""
        return self._all(requests)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text."""
        return self._all(requests)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the generated text of each request."""
        return self._all(requests)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        raise NotImplementedError("requests are encoded and scored in `answer`")

    def _all(self, requests: list[Any]) -> list[Any]:
        """Return the response to each request; requests of a document are scored together."""
        documents = [
            list(group)
            for _, group in itertools.groupby(requests, lambda item: (item.task_name, item.doc_id))
        ]
        answers: dict[int, Responses] = {}
        for batch in self.answer(documents, Batching(self.galen_backend.batch_tokens), repeats=1):
            answers.update(batch)
        responses = (answers[index] for index in range(len(documents)))
        return [response[0] for response in itertools.chain.from_iterable(responses)]

    def answer(
        self, documents: Sequence[Sequence[Any]], batching: Batching, repeats: int | None = None
    ) -> Iterator[list[tuple[int, Responses]]]:
        """Yield, batch by batch, the index of each answered document and its responses.

        Args:
            documents: the instances of each document.
            batching: batches; its `done`, `rank` and `world_size` count documents.
            repeats: responses per instance; None: as the instance says.

        Raises:
            DataError: a request cannot be encoded.
        """
        work = self._work(documents, batching, repeats)
        # each process has requests of its own documents only
        of_process = replace(batching, rank=0, world_size=1)
        yield from self._score(work, of_process)
        yield from self._generate(work, documents, of_process)

    def encode(self, documents: Sequence[Sequence[Any]]) -> list[Request | GenerationRequest]:
        """Return the requests to the backend.

        Args:
            documents: the instances of each document.

        Raises:
            DataError: a request cannot be encoded.
        """
        work = self._work(documents, Batching(1), None)
        return [*work.scored, *work.generated]

    def _score(self, work: Work, batching: Batching) -> Iterator[list[tuple[int, Responses]]]:
        """Score continuations; yield the documents that are complete with it."""
        if not work.scored:
            return
        batches = self.galen_backend.log_likelihoods_and_greedy(
            work.scored, replace(batching, done=work.done_scored)
        )
        for batch in batches:
            for index, values, greedy in batch:
                for cell, value, is_greedy in zip(work.cells[index], values, greedy, strict=True):
                    work.store_score(cell, value, is_greedy)
            yield work.finish([work.cells[index][0].document for index, *_ in batch])

    def _generate(
        self, work: Work, documents: Sequence[Sequence[Any]], batching: Batching
    ) -> Iterator[list[tuple[int, Responses]]]:
        """Generate texts; yield the documents that are complete with it."""
        if not work.generated:
            return
        max_tokens = batching.max_tokens
        if max_tokens == self.galen_backend.batch_tokens:
            max_tokens *= _GENERATION_FACTOR
        batches = self.galen_backend.generate(
            work.generated, replace(batching, done=work.done_generated, max_tokens=max_tokens)
        )
        for batch in batches:
            for index, answers in batch:
                cell = work.generation_cells[index]
                instance = documents[cell.document][cell.instance]
                work.store(cell, [self._cleaned(answer, instance, cell) for answer in answers])
            yield work.finish([work.generation_cells[index].document for index, _ in batch])

    def _work(
        self, documents: Sequence[Sequence[Any]], batching: Batching, repeats: int | None
    ) -> Work:
        """Return the requests of this process' documents."""
        work = Work()
        self.truncated.clear()
        for number in range(batching.rank, len(documents), batching.world_size):
            is_done = number in batching.done
            # continuations of the same prompt are one request
            by_prompt: dict[tuple[int, ...], Request] = {}
            cells: dict[tuple[int, ...], list[Cell]] = defaultdict(list)
            for position, instance in enumerate(documents[number]):
                is_rolling = instance.request_type == "loglikelihood_rolling"
                cell = Cell(number, position, repeats or instance.repeats, is_rolling)
                if instance.request_type == "generate_until":
                    work.add_generated(self._generation_request(instance, cell), cell, is_done)
                elif is_rolling:
                    for request in self._windows(instance.args[0]):
                        work.add_scored(request, [cell], is_done)
                else:
                    prompt, continuation = self._pair(number, *instance.args)
                    key = tuple(prompt)
                    by_prompt.setdefault(key, Request(prompt, [])).continuations.append(
                        continuation
                    )
                    cells[key].append(cell)
            for key, request in by_prompt.items():
                work.add_scored(request, cells[key], is_done)
        if self.truncated:
            logger.warning(
                f"{self.name}: prompts of {len(self.truncated)} documents are longer than the"
                f" model's {self.max_length} tokens; truncated on the left"
            )
        return work

    def _pair(self, document: int, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the ids of a context and its continuation, as the harness encodes them."""
        if context:
            context_ids, ids = self._encode_pair(context, continuation)
        else:
            ids = self.tok_encode(continuation, add_special_tokens=False)
            context_ids = [self.prefix_token_id]
            if ids[:1] == context_ids:
                ids = ids[1:]
        if not ids or not context_ids:
            raise DataError(
                f"{self.name}: this tokenizer gives no token for {continuation[:60]!r} after"
                f" {context[-40:]!r}"
            )
        if self._is_endpoint:
            return context_ids, ids
        if len(ids) > self.max_length:
            raise DataError(
                f"{self.name}: the answer {continuation[:60]!r} has {len(ids)} tokens, but the"
                f" model reads at most {self.max_length}"
            )
        # as in the harness, each pair by itself: a longer answer leaves less of the context
        excess = len(context_ids) + len(ids) - 1 - self.max_length
        if excess > 0:
            self.truncated.add(document)
            context_ids = context_ids[min(excess, len(context_ids) - 1) :]
        return context_ids, ids

    def _windows(self, text: str) -> Iterator[Request]:
        """Yield requests for all tokens of a text, in windows of the context's length."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        count = 0
        for context, ids in map(make_disjoint_window, windows):
            count += 1
            yield Request(list(context), [list(ids)])
        if not count:
            raise DataError(f"{self.name}: this tokenizer gives no token for {text[:60]!r}")

    def _generation_request(self, instance: Any, cell: Cell) -> GenerationRequest:
        """Return the request for a text; its prompt leaves room for the longest answer."""
        context, options = instance.args
        settings = normalize_gen_kwargs(options, _DEFAULT_MAX_NEW_TOKENS)
        sampling = self._sampling(settings)
        max_new_tokens = int(settings["max_gen_toks"])
        prompt = self.tok_encode(context)
        if not self._is_endpoint:
            if max_new_tokens >= self.max_length:
                # where the harness fails: half of the context is for the prompt
                max_new_tokens = max(self.max_length // 2, 1)
            room = self.max_length - max_new_tokens
            if len(prompt) > room:
                self.truncated.add(cell.document)
                prompt = prompt[-room:]
        # within thinking, stop strings stop nothing: see `_cleaned`
        until = () if self._may_think else _stops(options)
        key = f"{instance.task_name}\n{instance.doc_id}\n{instance.idx}"
        seeds = tuple(f"{key}\n{number}" for number in range(cell.repeats))
        return GenerationRequest(prompt, max_new_tokens, until, sampling, seeds)

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling:
        """Return the task's sampling settings.

        Raises:
            DataError: it samples with a setting that the backends do not have.
        """
        if not settings["do_sample"] or not settings["temperature"]:
            return Sampling()
        unsupported = sorted(settings.keys() - _SUPPORTED)
        if unsupported:
            raise DataError(
                f"{self.name}: the task samples with {', '.join(unsupported)}, which Galen's"
                " backends do not support"
            )
        return Sampling(
            temperature=float(settings["temperature"]),
            top_p=float(settings.get("top_p", 1.0)),
            top_k=int(settings.get("top_k", 0)),
            repetition_penalty=float(settings.get("repetition_penalty", 1.0)),
        )

    @property
    def _may_think(self) -> bool:
        """Return whether answers may begin with thinking; at an endpoint all chat models may."""
        if self.conversation is None:
            return False
        has_chat_template = bool(self.conversation.template)
        return self.conversation.markers is not None or (self._is_endpoint and has_chat_template)

    def _without_thinking(self, text: str, context: str) -> tuple[str, bool]:
        """Return the answer after the thinking, and whether the thinking was cut off."""
        # the backend encloses an endpoint's separate thinking in these
        markers = thinking.FAMILIES["think"]
        if self.conversation is not None and self.conversation.markers is not None:
            markers = self.conversation.markers
        split = thinking.split(text, markers, thinking.is_open(context, markers))
        return ("" if split.is_cut_off else split.answer), split.is_cut_off

    def _cleaned(self, answer: Generated, instance: Any, cell: Cell) -> str:
        """Return a generated text without thinking and without special tokens."""
        text = answer.text
        is_cut_off = False
        if self._may_think:
            text, is_cut_off = self._without_thinking(text, instance.args[0])
            text = text.lstrip()
            for stop in _stops(instance.args[1]):
                text = text.split(stop)[0]
        counts = self.answers.setdefault(cell.document, defaultdict(list))
        counts["num_tokens"].append(answer.num_tokens)
        counts["reached_limit"].append(not answer.finished)
        counts["truncated_thinking"].append(is_cut_off)
        for token in getattr(self.tokenizer, "all_special_tokens", ()):
            text = text.replace(token, "")
        return text


def _stops(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop strings of a task's `generation_kwargs`."""
    until = options.get("until") or []
    return tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
