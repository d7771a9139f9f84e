"""Log-likelihoods, next tokens and generated answers with `transformers`, many at a time.

The tokens that all prompts begin with (instruction, demonstrations) are computed once, and a prompt once for all its
continuations. Their first tokens are read from its last position; where continuations have more tokens, these follow in a
second pass on top of the prompts' cached keys and values. Prompts are batched by length and padded on the left, so that
logits over the vocabulary are computed for one position of each.
"""

import copy
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation import generation, model_folder
from evaluation.encoding import GenerationRequest, Request
from galen.errors import DataError

SHORTEST_PREFIX = 16
"""Tokens that prompts must share before it pays to compute them apart."""
Part = tuple[int, int]
"""This process' number, and how many there are."""
WHOLE: Part = (0, 1)
Row = tuple[int, int]
"""A request's place in its batch, and one of its continuations."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning that all prompts of a call share, computed once."""

    length: int
    cache: Any
    """Keys and values of a single row, or None when nothing is shared."""


class TransformersBackend:
    """A model on one device that gives log-likelihoods.

    Args:
        model: a Hugging Face folder.
        adapter: a PEFT adapter's folder on top of it, or None.
        dtype: float32, bfloat16 or float16, or None for float32 on the CPU and bfloat16 on CUDA.
        device: for example "cpu" or "cuda:1"; None takes CUDA when there is one.

    Raises:
        UsageError, DataError: a folder is missing or does not hold what it should.
    """

    def __init__(self, model: str | Path, adapter: str | Path | None = None, dtype: str | None = None, device: str | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        quiet()
        folder = model_folder.check_model(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or default_dtype(self.device.type)
        self.context_length = model_folder.context_length(folder)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            network = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.dtype))
            if adapter is not None:
                from peft import PeftModel

                place = model_folder.check_adapter(adapter)
                if (place / "tokenizer.json").is_file():  # with an adapter that was trained with new tokens, their rows come too
                    self.tokenizer = AutoTokenizer.from_pretrained(place)
                if len(self.tokenizer) > network.get_input_embeddings().weight.shape[0]:
                    network.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
                network = PeftModel.from_pretrained(network, place)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(f"{adapter or folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self.network = network.to(self.device).eval()

    @classmethod
    def of_network(cls, network: Any, tokenizer: Any, device: torch.device) -> "TransformersBackend":
        """Return a backend around a network that is loaded already, as in training; it is left in evaluation mode."""
        backend = cls.__new__(cls)
        backend.network, backend.tokenizer, backend.device = network.eval(), tokenizer, device
        backend.dtype, backend.context_length = str(network.dtype).removeprefix("torch."), None
        return backend

    def log_likelihoods(
        self, requests: Sequence[Request], max_batch_tokens: int, done: Collection[int] = (), part: Part = WHOLE
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield, batch by batch, a request's place in `requests` and the log-likelihoods (nats) of its continuations.

        The longest requests come first: memory peaks early, and time left is over- rather than underestimated.
        `max_batch_tokens` bounds requests × longest input; a single longer one is a batch of its own. Batches that hold
        only `done` places are left out; the others are the same batches as without it, and so give the same bits.
        Of several processes each takes its `part` of the batches.
        """
        for batch, scores in self._scores(requests, max_batch_tokens, done, part):
            yield [(place, values) for place, (values, _) in zip(batch, scores, strict=True)]

    def next_tokens(
        self, requests: Sequence[Request], max_batch_tokens: int, done: Collection[int] = (), part: Part = WHOLE
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield as `log_likelihoods`, and with it the token that the model holds likeliest after the prompt, of its whole vocabulary."""
        for batch, scores in self._scores(requests, max_batch_tokens, done, part):
            yield [(place, values, top) for place, (values, top) in zip(batch, scores, strict=True)]

    def generate(
        self, requests: Sequence[GenerationRequest], max_batch_tokens: int, done: Collection[int] = (), part: Part = WHOLE
    ) -> Iterator[list[tuple[int, list[str]]]]:
        """Yield, batch by batch, a request's place and its answers, one a branch.

        `max_batch_tokens` bounds answers × (longest prompt + longest answer). A prompt is computed once for all its branches.
        """
        prefix = self._prefix([request.prompt for request in requests])
        for batch in chosen(requests, prefix.length, max_batch_tokens, done, part):
            yield list(zip(batch, generation.run(self, [requests[place] for place in batch], prefix), strict=True))

    def _scores(
        self, requests: Sequence[Request], max_batch_tokens: int, done: Collection[int], part: Part
    ) -> Iterator[tuple[list[int], list[tuple[list[float], int]]]]:
        prefix = self._prefix([request.prompt for request in requests])
        for batch in chosen(requests, prefix.length, max_batch_tokens, done, part):
            yield batch, self._score([requests[place] for place in batch], prefix)

    @torch.inference_mode()
    def _score(self, requests: list[Request], prefix: Prefix) -> list[tuple[list[float], int]]:
        """Return the log-likelihoods of all continuations of the requests of one batch, and each one's top token."""
        rows = [(index, option) for index, request in enumerate(requests) for option in range(len(request.continuations))]
        longer = [row for row in rows if len(_continuation(requests, row)) > 1]
        output, mask_ps = self.read_prompts([request.prompt for request in requests], prefix, use_cache=bool(longer))
        first_pv = output.logits[:, -1].float().log_softmax(-1)  # p: prompts, v: vocabulary
        firsts = torch.tensor([_continuation(requests, row)[0] for row in rows], device=first_pv.device)
        of_row = torch.tensor([index for index, _ in rows], device=first_pv.device)
        values = dict(zip(rows, first_pv[of_row, firsts].tolist(), strict=True))
        tops = first_pv.argmax(-1).tolist()
        for group in groups_by_length(longer, [len(_continuation(requests, row)) for row in longer]):
            of_prompt = torch.tensor([index for index, _ in group])
            cache = copy.deepcopy(output.past_key_values)
            cache.batch_select_indices(of_prompt.to(self.device))
            tokens_rs, own_mask_rs = padded([_continuation(requests, row)[:-1] for row in group], left=False)  # r: rows, s: positions
            mask_rs = torch.cat([mask_ps[of_prompt], own_mask_rs], dim=1)
            positions_rs = mask_ps[of_prompt].sum(1, keepdim=True) + torch.arange(tokens_rs.shape[1])
            logits_rsv = self.forward(tokens_rs, mask_rs, positions_rs, use_cache=True, past_key_values=cache).logits
            for row, logits_sv in zip(group, logits_rsv, strict=True):
                values[row] += _sum_of_log_probabilities(logits_sv, _continuation(requests, row)[1:])
        return [
            ([values[index, option] for option in range(len(request.continuations))], tops[index]) for index, request in enumerate(requests)
        ]

    @torch.inference_mode()
    def _prefix(self, prompts: Sequence[list[int]]) -> Prefix:
        """Return the tokens that all prompts begin with, computed once; none where they are few or the model's window may lose them."""
        length = common_length(prompts)
        window = getattr(self.network.config, "sliding_window", None)
        if length < SHORTEST_PREFIX or len(prompts) < 2 or (window and window < (self.context_length or 0)):
            return Prefix(0, None)
        tokens_1s = torch.tensor([prompts[0][:length]])
        output = self.forward(tokens_1s, torch.ones_like(tokens_1s), torch.arange(length)[None], use_cache=True, logits_to_keep=1)
        return Prefix(length, output.past_key_values)

    def read_prompts(self, prompts: list[list[int]], prefix: Prefix, use_cache: bool) -> tuple[Any, Tensor]:
        """Return the model's output at the last position of each prompt, and the mask (prompts, positions) of what it read."""
        tokens_ps, mask_ps = padded([prompt[prefix.length :] for prompt in prompts], left=True)
        options: dict[str, Any] = {}
        if prefix.cache is not None:
            mask_ps = torch.cat([torch.ones((len(prompts), prefix.length), dtype=torch.long), mask_ps], dim=1)
            cache = copy.deepcopy(prefix.cache)
            cache.batch_repeat_interleave(len(prompts))
            options["past_key_values"] = cache
        positions_ps = (mask_ps.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
        use_cache = use_cache or prefix.cache is not None
        return self.forward(tokens_ps, mask_ps, positions_ps, use_cache=use_cache, logits_to_keep=1, **options), mask_ps

    def forward(self, tokens_rs: Tensor, mask_rs: Tensor, positions_rs: Tensor, **options: Any) -> Any:
        """Return the model's output for tokens, mask over all that is read, and positions, each (rows, positions)."""
        return self.network(
            input_ids=tokens_rs.to(self.device),
            attention_mask=mask_rs.to(self.device),
            position_ids=positions_rs.to(self.device),
            **options,
        )


def chosen(requests: Sequence[Any], prefix: int, max_tokens: int, done: Collection[int], part: Part) -> Iterator[list[int]]:
    """Yield the batches that this process computes: longest requests first, batches of `done` places left out, every n-th of n parts."""
    lengths = [max(request.input_length - prefix, 1) for request in requests]
    order = sorted(range(len(requests)), key=lambda place: (-lengths[place], place))
    rank, parts = part
    for number, batch in enumerate(batches(order, lengths, max_tokens)):
        if number % parts == rank and not all(place in done for place in batch):
            yield batch


def common_length(prompts: Sequence[list[int]]) -> int:
    """Return how many tokens all prompts begin with; at least one token of each is left over."""
    if not prompts:
        return 0
    low, high = min(prompts), max(prompts)  # of lists in order, these two differ earliest
    shortest = min(map(len, prompts)) - 1
    return next((place for place in range(shortest) if low[place] != high[place]), max(shortest, 0))


def batches(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut `order` into runs in which count × longest length stays within `max_tokens`, each of at least one."""
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


def groups_by_length(rows: Sequence[Row], lengths: Sequence[int]) -> list[list[Row]]:
    """Part rows so that in each group the shortest is at least 0.6 of the longest: little is computed for padding."""
    groups: list[list[Row]] = []
    longest = 0.0
    for length, row in sorted(zip(lengths, rows, strict=True), reverse=True):
        if not groups or length < 0.6 * longest:
            groups.append([])
            longest = length
        groups[-1].append(row)
    return groups


def default_dtype(device: str) -> str:
    """Return the precision to score in: float32 on a CPU, where exactness costs little, bfloat16 elsewhere."""
    return "float32" if device == "cpu" else "bfloat16"


def quiet() -> None:
    """Keep `transformers` from printing bars and advice; its errors still come as exceptions."""
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # about its own calls, as by peft
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _continuation(requests: list[Request], row: tuple[int, int]) -> list[int]:
    return requests[row[0]].continuations[row[1]]


def padded(rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Return tokens and mask (1 for a token, 0 for padding) as rows of equal length."""
    longest = max(map(len, rows))
    tokens_rs = torch.zeros((len(rows), longest), dtype=torch.long)
    mask_rs = torch.zeros_like(tokens_rs)
    for index, row in enumerate(rows):
        start = longest - len(row) if left else 0
        tokens_rs[index, start : start + len(row)] = torch.tensor(row)
        mask_rs[index, start : start + len(row)] = 1
    return tokens_rs, mask_rs


def _sum_of_log_probabilities(logits_sv: Tensor, tokens: list[int]) -> float:
    """Return the log-probability of `tokens`, the first of which is read from the first position."""
    logits_sv = logits_sv[: len(tokens)].float()
    chosen_s = logits_sv.gather(1, torch.tensor(tokens, device=logits_sv.device)[:, None])[:, 0]
    return float((chosen_s.double() - logits_sv.logsumexp(-1).double()).sum())
