"""A model on its device, run on prompts and on the tokens after them, to score and to generate."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prefix:
    """The common prefix of a group's prompts, computed once."""

    length: int
    cache: Any
    """Keys and values of a single row, or None when nothing is shared."""


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """A model in evaluation mode, with its tokenizer and its device."""

    model: Any
    tokenizer: Any
    device: torch.device

    @torch.inference_mode()
    def prefix(self, tokens: Sequence[int]) -> Prefix:
        """Return a prefix of prompts with its keys and values; without tokens one of length 0."""
        if not tokens:
            return Prefix(0, None)
        tokens_1s = torch.tensor([tokens])
        positions_1s = torch.arange(len(tokens))[None]
        output = self.forward(
            tokens_1s, torch.ones_like(tokens_1s), positions_1s, use_cache=True, logits_to_keep=1
        )
        return Prefix(len(tokens), cache_of(output))

    def prefill(self, prompts: list[list[int]], prefix: Prefix) -> tuple[Any, Tensor]:
        """Return the output at each prompt's last position, with its cache, and the attention mask.

        Prompts are padded on the left. The mask is (prompts, positions): 1 for a token, also of the
        prefix, 0 for padding.
        """
        tokens_ps, mask_ps = padded([prompt[prefix.length :] for prompt in prompts], left=True)
        cache = None
        if prefix.cache is not None:
            prefix_mask_ps = torch.ones((len(prompts), prefix.length), dtype=torch.long)
            mask_ps = torch.cat([prefix_mask_ps, mask_ps], dim=1)
            cache = repeated(prefix, len(prompts))
        all_positions_ps = (mask_ps.cumsum(1) - 1).clamp(min=0)
        positions_ps = all_positions_ps[:, prefix.length :]
        output = self.forward(
            tokens_ps, mask_ps, positions_ps, cache, use_cache=True, logits_to_keep=1
        )
        return output, mask_ps

    def forward(
        self,
        tokens_rs: Tensor,
        mask_rs: Tensor,
        positions_rs: Tensor,
        cache: Any = None,
        **options: Any,
    ) -> Any:
        """Return the model's output.

        Args:
            tokens_rs: token ids, (rows, positions).
            mask_rs: attention mask over cached and new tokens, (rows, all positions), or
                (rows, 1, positions, all positions).
            positions_rs: position ids, (rows, positions).
            cache: keys and values of earlier positions, or None.
            options: further arguments of the model.
        """
        if cache is not None:
            options[_cache_argument(self.model)] = cache
        return self.model(
            input_ids=tokens_rs.to(self.device),
            attention_mask=mask_rs.to(self.device),
            position_ids=positions_rs.to(self.device),
            **options,
        )


def cache_of(output: Any) -> Any:
    """Return the keys and values in a model's output, or None if there are none."""
    # transformers before 5.24, and code of model folders, name it past_key_values
    name = "cache" if hasattr(output, "cache") else "past_key_values"
    return getattr(output, name, None)


def _cache_argument(model: Any) -> str:
    """Return the name of the model's argument for keys and values, see `cache_of`."""
    if hasattr(model, "get_base_model"):  # with an adapter
        model = model.get_base_model()
    accepted = inspect.signature(model.forward).parameters
    return "cache" if "cache" in accepted else "past_key_values"


def repeated(prefix: Prefix, rows: int) -> Any:
    """Return a copy of a prefix's keys and values, once for each of `rows`."""
    cache = copy.deepcopy(prefix.cache)
    cache.batch_repeat_interleave(rows)
    return cache


def padded(rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Return token ids and mask (1 for a token, 0 for padding), each (rows, longest row)."""
    longest = max(map(len, rows))
    tokens_rs = torch.zeros((len(rows), longest), dtype=torch.long)
    mask_rs = torch.zeros_like(tokens_rs)
    for index, row in enumerate(rows):
        start = longest - len(row) if left else 0
        tokens_rs[index, start : start + len(row)] = torch.tensor(row)
        mask_rs[index, start : start + len(row)] = 1
    return tokens_rs, mask_rs
