"""Causal attention on PyTorch's fused kernel, instead of Megatron's unfused one."""

import functools
import itertools
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import (
    is_layer_window_attention,
    make_sharded_tensors_for_checkpoint,
)
from torch import Tensor


class FusedCausalAttention(MegatronModule):
    """`softmax(scale q k^T, causal) v` by scaled_dot_product_attention.

    The scale is 1 / sqrt(head size) or the model's own. With grouped key/value heads, sliding
    window, attention sinks, documents packed in a sequence, and context parallelism, for which each
    process gathers the keys and values of the entire sequence (as in Llama 3, arXiv 2407.21783,
    section 3.3.2).
    """

    softmax_offset: torch.nn.Parameter | None
    """Logit of each head's attention sink, named as in Megatron Core and Transformer Engine."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        assert attn_mask_type == AttnMaskType.causal and attention_type == "self"
        layers = config.window_attn_skip_freq
        windowed = is_layer_window_attention(config.window_size, layers, layer_number)
        self.window = config.window_size[0] + 1 if windowed else None
        assert config.attention_dropout == 0.0
        self.scale = config.softmax_scale
        self.groups = config.num_query_groups != config.num_attention_heads
        self.context_parallel = config.context_parallel_size > 1
        self.softmax_offset = None
        if config.softmax_type == "learnable":
            heads = config.num_attention_heads // config.tensor_model_parallel_size
            self.softmax_offset = torch.nn.Parameter(torch.zeros(heads, dtype=config.params_dtype))
            self.scale = self.scale or config.kv_channels**-0.5

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Return the context, [sequence, batch, heads x head size].

        When documents are packed it is [tokens, heads x head size].

        Args:
            query: [sequence, batch, heads, head size], or [tokens, heads, head size].
            key: the same, with fewer heads.
            value: like key.
            attention_mask: must be None, the mask is causal.
            attn_mask_type: not used.
            attention_bias: must be None.
            packed_seq_params: where the documents begin; a token attends to its own only. Under
                context parallelism, before they are divided among the processes.
        """
        assert attention_mask is None and attention_bias is None
        rank = 0
        ranks = 1
        if self.context_parallel:
            group = parallel_state.get_context_parallel_group()
            rank = group.rank()
            ranks = group.size()
            key = gather_from_sequence_parallel_region(key, group=group)
            value = gather_from_sequence_parallel_region(value, group=group)
        if packed_seq_params is None:
            return self._attend(query, key, value, self._mask(query, rank, ranks))
        # [rank, tokens, heads, head size]
        key = key.unflatten(0, (ranks, -1))
        value = value.unflatten(0, (ranks, -1))
        # of a document, each process has the same number of tokens
        bounds = [bound // ranks for bound in packed_seq_params.cu_seqlens_q.tolist()]
        contexts = []
        for start, end in itertools.pairwise(bounds):
            own = query[start:end].unsqueeze(1)
            keys = key[:, start:end].flatten(0, 1).unsqueeze(1)
            values = value[:, start:end].flatten(0, 1).unsqueeze(1)
            context = self._attend(own, keys, values, self._mask(own, rank, ranks))
            contexts.append(context.squeeze(1))
        return torch.cat(contexts)

    def _mask(self, query: Tensor, rank: int, ranks: int) -> Tensor | None:
        """Return which of all processes' tokens those of this one may attend to, if several."""
        if ranks == 1:
            return None
        return _context_parallel_mask(query.size(0), rank, ranks, self.window, query.device)

    def _attend(
        self, query_sbhd: Tensor, key_sbhd: Tensor, value_sbhd: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        # b h s d
        query, key, value = (
            tensor.permute(1, 2, 0, 3) for tensor in (query_sbhd, key_sbhd, value_sbhd)
        )
        length = query.size(2)
        if mask is None and self.window is not None and length > self.window:
            mask = _window_mask(length, self.window, query.device)
        attend = functools.partial(
            torch.nn.functional.scaled_dot_product_attention,
            scale=self.scale,
            enable_gqa=self.groups,
        )
        if self.softmax_offset is None:
            context_bhsd = attend(query, key, value, attn_mask=mask, is_causal=mask is None)
        else:
            context_bhsd = _attend_with_sinks(attend, query, key, value, mask, self.softmax_offset)
        return context_bhsd.permute(2, 0, 1, 3).flatten(2)

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the sinks for a distributed checkpoint, divided like the heads."""
        state: dict[str, Any] = make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"softmax_offset": 0},
            sharded_offsets,
            tp_group=parallel_state.get_tensor_model_parallel_group(),
            dp_cp_group=parallel_state.get_data_parallel_group(with_context_parallel=True),
        )
        return state


def _attend_with_sinks(
    attend: functools.partial[Tensor],
    query_bhsd: Tensor,
    key_bhsd: Tensor,
    value_bhsd: Tensor,
    mask: Tensor | None,
    sinks: Tensor,
) -> Tensor:
    """Return attention whose softmax has one more logit per head, which takes no value.

    The sink is a key before all others, with a channel of its own: there the queries hold the
    logit, the other keys 0. So the fused kernel computes it, and its gradient. Further empty
    channels make a head size that CUDA's kernels accept, a multiple of 8.

    Args:
        attend: scaled_dot_product_attention with its scale.
        query_bhsd: [batch, heads, queries, head size].
        key_bhsd: [batch, key/value heads, keys, head size].
        value_bhsd: like the keys.
        mask: [queries, keys], true where a query may attend; None for a causal mask.
        sinks: logits, [heads].
    """
    pad = torch.nn.functional.pad
    size = query_bhsd.size(3)
    channels = 8 - size % 8
    logits = (sinks / attend.keywords["scale"]).to(query_bhsd.dtype).view(1, -1, 1, 1)
    logits = pad(logits.expand(*query_bhsd.shape[:3], 1), (0, channels - 1))
    query = torch.cat([query_bhsd, logits], dim=3)
    key = pad(key_bhsd, (0, channels, 1, 0))
    key[:, :, 0, size] = 1
    value = pad(value_bhsd, (0, channels, 1, 0))
    if mask is not None:
        return attend(query, key, value, attn_mask=pad(mask, (1, 0), value=True))[..., :size]
    # a query before all others keeps the mask causal
    return attend(pad(query, (0, 0, 1, 0)), key, value, is_causal=True)[:, :, 1:, :size]


@functools.lru_cache(maxsize=2)
def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Return [sequence, sequence], true where a token may attend.

    It attends to itself and the `window` - 1 tokens before it.
    """
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


@functools.lru_cache(maxsize=2)
def _context_parallel_mask(
    length: int, rank: int, ranks: int, window: int | None, device: torch.device
) -> Tensor:
    """Return [length, length x ranks], true where a token of this process may attend.

    The columns are the tokens of all processes, in rank order.

    Args:
        length: of this process's part of a sequence.
        rank: of this process.
        ranks: number of processes.
        window: tokens that a token attends to, itself included; None for all before it.
        device: of the mask.
    """
    bounds = torch.tensor([0, length * ranks], device=device)
    positions = [context_parallel_positions(bounds, other, ranks) for other in range(ranks)]
    distances = positions[rank][:, None] - torch.cat(positions)[None, :]
    mask = distances >= 0
    if window is not None:
        mask &= distances < window
    return mask


def context_parallel_positions(bounds: Tensor, rank: int, ranks: int) -> Tensor:
    """Return the positions of a row of documents that a context-parallel process holds.

    Each document is divided into twice as many chunks as processes; each process holds one from the
    front and the one that mirrors it, which balances the work of causal attention. Transformer
    Engine and Megatron's rotary embedding expect this order.

    Args:
        bounds: where each document begins and the last ends, all multiples of 2 x `ranks`.
        rank: of the process.
        ranks: number of processes.
    """
    lengths = bounds.diff()
    starts = bounds[:-1].repeat_interleave(lengths)
    chunk_lengths = (lengths // (2 * ranks)).repeat_interleave(lengths)
    chunks = (torch.arange(len(starts), device=bounds.device) - starts) // chunk_lengths
    is_own = (chunks == rank) | (chunks == 2 * ranks - 1 - rank)
    return is_own.nonzero().flatten()
