"""Interface of all backends, and how requests are grouped into batches.

Needs no torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from evaluation.backends.encoding import Generated, GenerationRequest, Request, TopTokensRequest


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are grouped into batches, and which batches this process computes."""

    max_tokens: int
    """Maximum number of padded tokens in a batch; a longer request is a batch of its own."""
    done: Collection[int] = ()
    """Indices of requests that need no answer.

    Batches of only these are skipped. The other batches are the same as without it, and so give the
    same bits.
    """
    rank: int = 0
    world_size: int = 1
    """Number of processes that share the requests; each computes every n-th batch."""

    def batches(
        self, groups: Sequence[Sequence[int]], lengths: Mapping[int, int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield this process' batches of request indices, each with the index of its group.

        Groups follow one another; in each the longest requests come first, so that memory peaks
        early and the remaining time is over- rather than underestimated.

        Args:
            groups: indices of the requests in each group; a batch is of one group.
            lengths: tokens of each request, by its index.
        """
        number = 0
        for group, indices in enumerate(groups):
            order = sorted(indices, key=lambda index: (-lengths[index], index))
            for batch in batches(order, lengths, self.max_tokens):
                is_own = number % self.world_size == self.rank
                if is_own and not all(index in self.done for index in batch):
                    yield group, batch
                number += 1


class Backend(Protocol):
    """Tokenizer and model: answers requests batch by batch, each with its index in the input.

    Several processes share the requests, see `Batching`.
    """

    tokenizer: Any
    context_length: int | None
    """Maximum number of input tokens; None if the model's configuration does not state it."""
    device: Any
    dtype: str

    @property
    def batch_tokens(self) -> int:
        """Default of `Batching.max_tokens`."""
        ...

    def log_likelihoods(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's index and the log-likelihoods (nats) of its continuations."""
        ...

    def next_tokens(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield the same, and the id of the most likely token after the prompt."""
        ...

    def log_likelihoods_and_greedy(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], list[bool]]]]:
        """Yield as `log_likelihoods`, with whether greedy decoding gives each continuation."""
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[Generated]]]]:
        """Yield each request's index and its generated answers, one for each seed."""
        ...


@runtime_checkable
class TopTokensBackend(Protocol):
    """A backend without a vocabulary, which returns the most likely next tokens as text."""

    tokenizer: Any

    def top_tokens(
        self, requests: Sequence[TopTokensRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[tuple[str, float]]]]]:
        """Yield each request's index and the most likely next tokens, the likeliest first.

        Each is a text with its log-probability (nats).
        """
        ...


def batches(
    order: Sequence[int], lengths: Mapping[int, int], max_tokens: int
) -> Iterator[list[int]]:
    """Split `order` into batches in which count × longest length is at most `max_tokens`.

    Each batch has at least one request.
    """
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
            longest = lengths[index]
        batch.append(index)
    if batch:
        yield batch
