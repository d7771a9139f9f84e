"""Log-likelihoods, next tokens and generated answers with `transformers`, batch by batch.

A prefix that prompts share (instruction, few-shot examples) is computed once, and a prompt once for
all its continuations, in one pass: see `evaluation.backends.tree_attention`. For generation,
prompts are padded on the left.
"""

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.backends import (
    generation,
    likelihood,
    model_folder,
    packed_linear,
    prefix_groups,
    tree_attention,
)
from evaluation.backends.base import Batching
from evaluation.backends.encoding import Generated, GenerationRequest, Request
from evaluation.backends.likelihood import RequestScores
from evaluation.backends.model_loading import load_model, with_adapter
from evaluation.backends.model_runner import ModelRunner, Prefix
from evaluation.backends.prefix_groups import PrefixGroup
from evaluation.backends.tree_attention import PrefixTree
from galen.errors import DataError, UsageError


class TransformersBackend:
    """A model on one device that gives log-likelihoods.

    Args:
        model: a Hugging Face folder.
        adapter: a PEFT adapter's folder on top of it, or None.
        dtype: float32, bfloat16 or float16, or None for float32 on the CPU and bfloat16 on CUDA.
        device: for example "cpu" or "cuda:1"; None takes the GPU of this process' number on its
            machine, or the CPU without any.

    Raises:
        UsageError, DataError: a folder is missing or does not hold what it should.
    """

    def __init__(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        quiet()
        folder = model_folder.check_model(model)
        self.device = usable_device(device or default_device(torch.cuda.device_count()))
        self.dtype = dtype or default_dtype(self.device.type)
        self.context_length = model_folder.context_length(folder)
        loaded, self.tokenizer = load_model(folder, dtype=getattr(torch, self.dtype))
        if adapter is not None:
            loaded, self.tokenizer = with_adapter(
                loaded, self.tokenizer, model_folder.check_adapter(adapter)
            )
        loaded = loaded.to(self.device).eval()
        packed_linear.pack(loaded)
        self.runner = ModelRunner(loaded, self.tokenizer, self.device)

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, device: torch.device) -> "TransformersBackend":
        """Return a backend around a loaded model, as in training; sets its evaluation mode."""
        backend = cls.__new__(cls)
        backend.runner = ModelRunner(model.eval(), tokenizer, device)
        backend.tokenizer = tokenizer
        backend.device = device
        backend.dtype = str(model.dtype).removeprefix("torch.")
        backend.context_length = None
        return backend

    @property
    def batch_tokens(self) -> int:
        """Default of `Batching.max_tokens`."""
        return 16384 if self.device.type == "cuda" else 1024

    def log_likelihoods(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield, batch by batch, each request's index and log-likelihoods (nats)."""
        for batch, scores in self._scores(requests, batching):
            yield [
                (index, score.log_likelihoods) for index, score in zip(batch, scores, strict=True)
            ]

    def next_tokens(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield as `log_likelihoods`, with the most likely token of all after the prompt."""
        for batch, scores in self._scores(requests, batching):
            yield [
                (index, score.log_likelihoods, score.top_token)
                for index, score in zip(batch, scores, strict=True)
            ]

    def log_likelihoods_and_greedy(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], list[bool]]]]:
        """Yield as `log_likelihoods`, with whether greedy decoding gives each continuation."""
        for batch, scores in self._scores(requests, batching, greedy=True):
            yield [
                (index, score.log_likelihoods, score.greedy)
                for index, score in zip(batch, scores, strict=True)
            ]

    def generate(
        self, requests: Sequence[GenerationRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[Generated]]]]:
        """Yield, batch by batch, a request's index and its answers, one per seed.

        The tokens of a batch are answers × (longest prompt + longest answer). A prompt is computed
        once for all its samples.
        """
        prompts = [request.prompt for request in requests]
        self._check_ids(prompts)
        longest = max((request.input_length for request in requests), default=0)
        groups = [PrefixGroup(0, list(range(len(requests))))]
        if self._can_share_prefixes(longest):
            groups = prefix_groups.groups(prompts)
        lengths: dict[int, int] = {}
        for group in groups:
            for index in group.indices:
                lengths[index] = max(requests[index].input_length - group.length, 1)
        prefix_of = self._prefixes(requests, groups)
        for number, batch in batching.batches([group.indices for group in groups], lengths):
            batch_requests = [requests[index] for index in batch]
            answers = generation.run(self.runner, batch_requests, prefix_of(number))
            yield list(zip(batch, answers, strict=True))

    def _scores(
        self, requests: Sequence[Request], batching: Batching, greedy: bool = False
    ) -> Iterator[tuple[list[int], list[RequestScores]]]:
        """Yield, batch by batch, the indices of requests and their scores."""
        sequences = ([request.prompt, *request.continuations] for request in requests)
        self._check_ids(itertools.chain.from_iterable(sequences))
        longest = max((request.input_length for request in requests), default=0)
        if self._can_share_prefixes(longest):
            yield from self._scores_by_tree(requests, batching, greedy)
        else:
            yield from self._scores_by_row(requests, batching, greedy)

    def _scores_by_tree(
        self, requests: Sequence[Request], batching: Batching, greedy: bool
    ) -> Iterator[tuple[list[int], list[RequestScores]]]:
        groups = prefix_groups.groups([request.prompt for request in requests])
        trees: dict[int, PrefixTree] = {}
        for group in groups:
            for index in group.indices:
                remaining = requests[index].prompt[group.length :]
                trees[index] = tree_attention.tree(remaining, requests[index].continuations)
        lengths = {index: len(tree.tokens) for index, tree in trees.items()}
        prefix_of = self._prefixes(requests, groups)
        for number, batch in batching.batches([group.indices for group in groups], lengths):
            batch_requests = [requests[index] for index in batch]
            batch_trees = [trees[index] for index in batch]
            scores = likelihood.score_trees(
                self.runner, batch_requests, batch_trees, prefix_of(number), greedy
            )
            yield batch, scores

    def _scores_by_row(
        self, requests: Sequence[Request], batching: Batching, greedy: bool
    ) -> Iterator[tuple[list[int], list[RequestScores]]]:
        lengths = {
            index: likelihood.num_row_tokens(request) for index, request in enumerate(requests)
        }
        for _, batch in batching.batches([range(len(requests))], lengths):
            batch_requests = [requests[index] for index in batch]
            yield batch, likelihood.score_rows(self.runner, batch_requests, greedy)

    def _check_ids(self, sequences: Iterable[list[int]]) -> None:
        """Check that the model has an embedding for each token.

        On a GPU a missing one ends the process without a message.
        """
        highest = max(map(max, sequences), default=0)
        num_embeddings = self.runner.model.config.get_text_config().vocab_size
        if highest >= num_embeddings:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise DataError(
                f"the tokenizer gives {token!r} the id {highest}, but the model has"
                f" {num_embeddings} embeddings; they do not belong together"
            )

    def _can_share_prefixes(self, longest: int) -> bool:
        """Return whether a mask alone decides what tokens of inputs up to `longest` attend to.

        Not so with recurrent layers or a shorter sliding window.
        """
        config = self.runner.model.config.get_text_config()
        if config._attn_implementation not in ("sdpa", "eager"):
            return False
        layer_types = set(getattr(config, "layer_types", None) or ())
        if not layer_types <= {"full_attention", "sliding_attention"}:
            return False
        if getattr(self.runner.model, "_is_stateful", False):
            return False
        window = getattr(config, "sliding_window", None)
        return not window or window >= longest

    def _prefixes(
        self, requests: Sequence[Request | GenerationRequest], groups: Sequence[PrefixGroup]
    ) -> Callable[[int], Prefix]:
        """Return a function that computes a group's shared prefix and caches the latest one."""

        @functools.lru_cache(maxsize=1)
        def prefix(number: int) -> Prefix:
            group = groups[number]
            return self.runner.prefix(requests[group.indices[0]].prompt[: group.length])

        return prefix


def default_device(gpus: int) -> str:
    """Return the device of this process among `gpus`.

    Several processes of a machine, started by `--processes`, torchrun or Slurm, share them.
    """
    local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    return f"cuda:{local % gpus}" if gpus else "cpu"


def usable_device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        UsageError: this machine has none of this name.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def default_dtype(device: str) -> str:
    """Return the precision to score in: float32 on a CPU, where it costs little, else bfloat16."""
    return "float32" if device == "cpu" else "bfloat16"


def quiet() -> None:
    """Keep `transformers` from printing bars and advice; its errors still come as exceptions."""
    import transformers

    # about its own calls, as by peft
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
