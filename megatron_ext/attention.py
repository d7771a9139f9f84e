"""Causal attention on PyTorch's fused kernel, in the place of Megatron's unfused one."""

import functools
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class FusedCausalAttention(MegatronModule):
    """`softmax(q k^T / sqrt(d), causal) v` by scaled_dot_product_attention, with grouped key/value heads and sliding window."""

    def __init__(self, config: TransformerConfig, layer_number: int, attn_mask_type: AttnMaskType, attention_type: str, **_: Any) -> None:
        super().__init__(config=config)
        if attn_mask_type != AttnMaskType.causal or attention_type != "self":
            raise ValueError(f"only causal self-attention is supported, not {attn_mask_type} {attention_type} (layer {layer_number})")
        self.scale = config.softmax_scale
        self.dropout = config.attention_dropout
        self.window = None if config.window_size is None else config.window_size[0] + 1
        self.groups = config.num_query_groups != config.num_attention_heads
        if config.num_query_groups is not None and config.num_query_groups < parallel_state.get_tensor_model_parallel_world_size():
            raise ValueError("fewer key/value groups than tensor-parallel ranks")

    def forward(
        self,
        query_sbhd: Tensor,
        key_sbhd: Tensor,
        value_sbhd: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> Tensor:
        """Return the context, [sequence, batch, heads x head size]. `attention_mask` must be None: the mask is causal."""
        assert attention_mask is None and attention_bias is None and packed_seq_params is None
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query_sbhd, key_sbhd, value_sbhd))  # b h s d
        length = query.size(2)
        mask = None if self.window is None or length <= self.window else _window_mask(length, self.window, query.device)
        context_bhsd = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=self.groups,
        )
        return context_bhsd.permute(2, 0, 1, 3).flatten(2)


@functools.lru_cache(maxsize=2)
def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Return [sequence, sequence], true where a token may look: itself and the `window` - 1 tokens before it."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)
