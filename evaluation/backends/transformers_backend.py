"""Log-likelihoods, next tokens and generated answers with `transformers`, many at a time.

Tokens that prompts begin with in common (instruction, few-shot examples) are computed once, and a
prompt once for all its continuations, in one pass: see `evaluation.backends.tree_attention`. Logits
over the vocabulary are computed only where they are read. For generation, prompts are batched by
length and padded on the left.
"""

import functools
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.backends import generation, model_folder, prefix_groups, tree_attention
from evaluation.backends.base import WHOLE, Part, own_batches
from evaluation.backends.encoding import GenerationRequest, Request
from evaluation.backends.model_loading import load_model, with_adapter
from evaluation.backends.model_runner import ModelRunner, Prefix, padded, repeated
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
        self.runner = ModelRunner(loaded.to(self.device).eval(), self.tokenizer, self.device)

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, device: torch.device) -> "TransformersBackend":
        """Return a backend around a loaded model, as in training; sets its evaluation mode."""
        backend = cls.__new__(cls)
        backend.runner = ModelRunner(model.eval(), tokenizer, device)
        backend.tokenizer = tokenizer
        backend.device = device
        backend.dtype, backend.context_length = str(model.dtype).removeprefix("torch."), None
        return backend

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch where nothing else is said."""
        return 16384 if self.device.type == "cuda" else 1024

    def log_likelihoods(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield, batch by batch, a request's index and its continuations' log-likelihoods (nats).

        Among those with a common beginning the longest come first: memory peaks early, and time
        left is over- rather than underestimated. `max_batch_tokens` bounds the tokens of a batch; a
        single longer request is a batch of its own. Batches that hold only `done` places are left
        out; the others are the same batches as without it, and so give the same bits. Of several
        processes each takes its `part` of the batches.
        """
        for batch, scores in self._scores(requests, max_batch_tokens, done, part):
            yield [(place, values) for place, (values, _) in zip(batch, scores, strict=True)]

    def next_tokens(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield as `log_likelihoods`, with the likeliest token of all after the prompt."""
        for batch, scores in self._scores(requests, max_batch_tokens, done, part):
            yield [(place, values, top) for place, (values, top) in zip(batch, scores, strict=True)]

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[str]]]]:
        """Yield, batch by batch, a request's place and its answers, one per sample.

        `max_batch_tokens` bounds answers × (longest prompt + longest answer). A prompt is computed
        once for all its samples.
        """
        self._check_ids(request.prompt for request in requests)
        lengths = [request.input_length for request in requests]
        groups = self._groups([request.prompt for request in requests], max(lengths, default=0))
        sizes = {
            place: max(lengths[place] - shared, 1) for shared, places in groups for place in places
        }
        prefixes = self._prefixes(requests, groups)
        for group, batch in own_batches(
            [places for _, places in groups], sizes, max_batch_tokens, done, part
        ):
            yield list(
                zip(
                    batch,
                    generation.run(
                        self.runner, [requests[place] for place in batch], prefixes(group)
                    ),
                    strict=True,
                )
            )

    def _scores(
        self, requests: Sequence[Request], max_batch_tokens: int, done: Collection[int], part: Part
    ) -> Iterator[tuple[list[int], list[tuple[list[float], int]]]]:
        self._check_ids(
            ids for request in requests for ids in (request.prompt, *request.continuations)
        )
        longest = max((request.input_length for request in requests), default=0)
        groups = self._groups([request.prompt for request in requests], longest)
        shared_by_place = {place: shared for shared, places in groups for place in places}
        trees = [
            tree_attention.tree(item.prompt[shared_by_place[place] :], item.continuations)
            for place, item in enumerate(requests)
        ]
        branching = self._can_branch(longest)
        sizes = {
            place: len(item.tokens) if branching else size_apart(requests[place])
            for place, item in enumerate(trees)
        }
        prefixes = self._prefixes(requests, groups)
        for group, batch in own_batches(
            [places for _, places in groups], sizes, max_batch_tokens, done, part
        ):
            if branching:
                yield (
                    batch,
                    self._score(
                        [requests[place] for place in batch],
                        [trees[place] for place in batch],
                        prefixes(group),
                    ),
                )
            else:
                yield batch, self._score_apart([requests[place] for place in batch])

    @torch.inference_mode()
    def _score(
        self, requests: list[Request], trees: list[PrefixTree], prefix: Prefix
    ) -> list[tuple[list[float], int]]:
        """Return log-likelihoods of all continuations and the top token, by request of a batch."""
        rows = tree_attention.pack(trees, prefix.length)
        mask = rows.attention_mask_r1st
        # adds its mask; the other kernels take truth values
        if self.runner.model.config.get_text_config()._attn_implementation == "eager":
            dtype = self.runner.model.dtype
            mask = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
        options: dict[str, Any] = {"use_cache": False}
        if prefix.cache is not None:
            options = {"use_cache": True, "past_key_values": repeated(prefix, len(rows.tokens_rs))}
        logit_positions = [
            [[start + at for at in positions] for positions in item.logit_positions]
            for item, start in zip(trees, rows.starts, strict=True)
        ]
        return self._read(
            requests, logit_positions, rows.tokens_rs, mask, rows.positions_rs, options
        )

    @torch.inference_mode()
    def _score_apart(self, requests: list[Request]) -> list[tuple[list[float], int]]:
        """Return the same with a row for each of `endings`, for more than masked attention."""
        rows = [
            (number, ending)
            for number, request in enumerate(requests)
            for ending in endings(request)
        ]
        tokens_rs, mask_rs = padded(
            [[*requests[number].prompt, *ending] for number, ending in rows], left=False
        )
        row_of = {key: row for row, key in enumerate(rows)}
        logit_positions: list[list[list[int]]] = []
        for number, request in enumerate(requests):
            starts = [
                row_of[number, tuple(item[:-1])] * tokens_rs.shape[1] + len(request.prompt) - 1
                for item in request.continuations
            ]
            logit_positions.append(
                [
                    list(range(start, start + len(item)))
                    for start, item in zip(starts, request.continuations, strict=True)
                ]
            )
        positions_rs = torch.arange(tokens_rs.shape[1]).expand_as(tokens_rs)
        return self._read(
            requests, logit_positions, tokens_rs, mask_rs, positions_rs, {"use_cache": False}
        )

    def _read(
        self,
        requests: list[Request],
        logit_positions: list[list[list[int]]],
        tokens_rs: Tensor,
        mask: Tensor,
        positions_rs: Tensor,
        options: Any,
    ) -> list[tuple[list[float], int]]:
        """Run the model and return log-likelihoods and top tokens.

        `logit_positions` has the places, rows end to end, that predict each token.
        """
        places = sorted(
            {place for request in logit_positions for positions in request for place in positions}
        )
        index = torch.tensor(places, device=self.device)
        head = self.runner.model.get_output_embeddings()
        # logits only where they are read
        hook = head.register_forward_pre_hook(
            lambda _, given: (given[0].flatten(0, 1)[index][None],)
        )
        try:
            logits_nv = self.runner.forward(tokens_rs, mask, positions_rs, **options).logits[0]
        finally:
            hook.remove()
        number = {place: n for n, place in enumerate(places)}
        rows = [
            number[place]
            for request in logit_positions
            for positions in request
            for place in positions
        ]
        tokens = [
            token
            for request in requests
            for continuation in request.continuations
            for token in continuation
        ]
        chosen_k = logits_nv[
            torch.tensor(rows, device=self.device), torch.tensor(tokens, device=self.device)
        ].double()
        sums_n = torch.cat(
            [part_nv.float().logsumexp(-1) for part_nv in logits_nv.split(1024)]
        ).double()
        values = iter((chosen_k - sums_n[torch.tensor(rows, device=self.device)]).tolist())
        tops = (
            logits_nv[
                torch.tensor(
                    [number[request[0][0]] for request in logit_positions], device=self.device
                )
            ]
            .argmax(-1)
            .tolist()
        )
        return [
            (
                [sum(next(values) for _ in continuation) for continuation in request.continuations],
                top,
            )
            for request, top in zip(requests, tops, strict=True)
        ]

    def _check_ids(self, sequences: Iterable[list[int]]) -> None:
        """Check that the model has an embedding for each token.

        On a GPU a missing one ends the process without a message.
        """
        highest, rows = (
            max(map(max, sequences), default=0),
            self.runner.model.config.get_text_config().vocab_size,
        )
        if highest >= rows:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise DataError(
                f"the tokenizer gives {token!r} the id {highest}, but the model has {rows}"
                " embeddings; they do not belong together"
            )

    def _can_branch(self, longest: int) -> bool:
        """Return whether a mask alone decides what tokens of inputs up to `longest` attend to.

        Not so with recurrent layers or a shorter sliding window.
        """
        config = self.runner.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        return (
            config._attn_implementation in ("sdpa", "eager")
            and kinds <= {"full_attention", "sliding_attention"}
            and not getattr(self.runner.model, "_is_stateful", False)
            and not (window and window < longest)
        )

    def _groups(self, prompts: Sequence[list[int]], longest: int) -> list[tuple[int, list[int]]]:
        return (
            prefix_groups.groups(prompts)
            if self._can_branch(longest)
            else [(0, list(range(len(prompts))))]
        )

    def _prefixes(
        self, requests: Sequence[Any], groups: Sequence[tuple[int, list[int]]]
    ) -> Callable[[int], Prefix]:
        """Return a function that computes a group's shared prefix and caches the latest one."""

        @functools.lru_cache(maxsize=1)
        def prefix(group: int) -> Prefix:
            length, places = groups[group]
            return self.runner.prefix(requests[places[0]].prompt[:length])

        return prefix


def endings(request: Request) -> list[tuple[int, ...]]:
    """Return the continuations without their last tokens, which are only predicted.

    Equal ones once.
    """
    return list(dict.fromkeys(tuple(item[:-1]) for item in request.continuations))


def size_apart(request: Request) -> int:
    """Return how many tokens a request takes up with a row for each of its endings."""
    return len(endings(request)) * request.input_length


def default_device(gpus: int) -> str:
    """Return the device of this process among `gpus`.

    Several processes of a machine, started by `--processes`, torchrun or Slurm, share them.
    """
    local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    return f"cuda:{local % gpus}" if gpus else "cpu"


def usable_device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        UsageError: there is none such here.
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
