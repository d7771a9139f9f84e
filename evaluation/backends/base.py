"""Interface of all backends, and how requests are cut into batches.

Needs no torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from evaluation.backends.encoding import GenerationRequest, Request

Part = tuple[int, int]
"""This process' number, and how many there are."""
WHOLE: Part = (0, 1)


class Backend(Protocol):
    """Tokenizer and scorer: answers requests batch by batch, with their positions in the input.

    See `TransformersBackend`.
    """

    tokenizer: Any
    context_length: int | None
    """Tokens that the model reads at most, or None where it does not say."""
    device: Any
    dtype: str

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch where nothing else is said."""
        ...

    def log_likelihoods(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's place and its continuations' log-likelihoods."""
        ...

    def next_tokens(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield the same, and the likeliest token of the vocabulary."""
        ...

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[str]]]]:
        """Yield each request's place and its answers."""
        ...


def own_batches(
    groups: Sequence[Sequence[int]],
    sizes: Mapping[int, int],
    max_tokens: int,
    done: Collection[int],
    part: Part,
) -> Iterator[tuple[int, list[int]]]:
    """Yield this process' batches, each with the number of its group.

    Of n parts, each takes every n-th batch; batches that hold only `done` places are left out.
    Groups follow one another; in each the longest requests come first.
    """
    rank, parts = part
    ordered = [sorted(places, key=lambda place: (-sizes[place], place)) for places in groups]
    everything = (
        (group, batch)
        for group, order in enumerate(ordered)
        for batch in batches(order, sizes, max_tokens)
    )
    for number, (group, batch) in enumerate(everything):
        if number % parts == rank and not all(place in done for place in batch):
            yield group, batch


def batches(
    order: Sequence[int], lengths: Mapping[int, int], max_tokens: int
) -> Iterator[list[int]]:
    """Cut `order` into batches in which count × longest length stays within `max_tokens`.

    Each batch has at least one request.
    """
    batch: list[int] = []
    longest = 0
    for place in order:
        longest = max(longest, lengths[place])
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch, longest = [], lengths[place]
        batch.append(place)
    if batch:
        yield batch
