"""Log-likelihoods of continuations with `transformers`, many at a time.

A prompt is computed once for all its continuations. Their first tokens are read from its last position; where continuations
have more tokens, these follow in a second pass on top of the prompts' cached keys and values. Prompts are batched by length
and padded on the left, so that logits over the vocabulary are computed for one position of each.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation import model_folder
from evaluation.encoding import Request
from galen.errors import DataError


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

                network = PeftModel.from_pretrained(network, model_folder.check_adapter(adapter))
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
        self, requests: Sequence[Request], max_batch_tokens: int, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield, batch by batch, a request's place in `requests` and the log-likelihoods (nats) of its continuations.

        The longest requests come first: memory peaks early, and time left is over- rather than underestimated.
        `max_batch_tokens` bounds requests × longest input; a single longer one is a batch of its own. Batches that hold
        only `done` places are left out; the others are the same batches as without it, and so give the same bits.
        """
        order = sorted(range(len(requests)), key=lambda place: (-requests[place].input_length, place))
        for batch in batches(order, [request.input_length for request in requests], max_batch_tokens):
            if all(place in done for place in batch):
                continue
            yield list(zip(batch, self._score([requests[place] for place in batch]), strict=True))

    @torch.inference_mode()
    def _score(self, requests: list[Request]) -> list[list[float]]:
        """Return the log-likelihoods of all continuations of the requests of one batch."""
        rows = [(index, option) for index, request in enumerate(requests) for option in range(len(request.continuations))]
        longer = [row for row in rows if len(_continuation(requests, row)) > 1]
        tokens_ps, mask_ps = _padded([request.prompt for request in requests], left=True)  # p: prompts, s: positions, v: vocabulary
        output = self._forward(tokens_ps, mask_ps, (mask_ps.cumsum(1) - 1).clamp(min=0), use_cache=bool(longer), logits_to_keep=1)
        first_pv = output.logits[:, -1].float().log_softmax(-1)
        values = {row: float(first_pv[row[0], _continuation(requests, row)[0]]) for row in rows}
        if longer:
            of_prompt = torch.tensor([index for index, _ in longer])
            output.past_key_values.batch_select_indices(of_prompt.to(self.device))
            tokens_rs, own_mask_rs = _padded([_continuation(requests, row)[:-1] for row in longer], left=False)  # r: rows
            mask_rs = torch.cat([mask_ps[of_prompt], own_mask_rs], dim=1)
            positions_rs = mask_ps[of_prompt].sum(1, keepdim=True) + torch.arange(tokens_rs.shape[1])
            logits_rsv = self._forward(tokens_rs, mask_rs, positions_rs, use_cache=True, past_key_values=output.past_key_values).logits
            for row, logits_sv in zip(longer, logits_rsv, strict=True):
                values[row] += _sum_of_log_probabilities(logits_sv, _continuation(requests, row)[1:])
        return [[values[index, option] for option in range(len(request.continuations))] for index, request in enumerate(requests)]

    def _forward(self, tokens_rs: Tensor, mask_rs: Tensor, positions_rs: Tensor, **options: Any) -> Any:
        return self.network(
            input_ids=tokens_rs.to(self.device),
            attention_mask=mask_rs.to(self.device),
            position_ids=positions_rs.to(self.device),
            **options,
        )


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


def _padded(rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
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
