"""Self-attention with what Megatron's own lacks: a full-width QK norm, rotary bases by layer."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor
from torch.distributed import ProcessGroup

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.rope import LongRope, Yarn


class DecoderAttention(SelfAttention):
    """Megatron's self-attention with the QK norm of OLMo 2 and the rotary bases of OLMo 3."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        layer_number: int,
        architecture: Architecture,
        local_rope: RotaryEmbedding | None,
        **options: Any,
    ) -> None:
        """Build the attention of one layer.

        Args:
            config: of the model.
            layer_number: of all layers of the model, from 1.
            architecture: of the model.
            local_rope: rotary positions of the layers with a window, if they have their own.
            options: further arguments of Megatron's self-attention.
        """
        layers = architecture.window_attn_skip_freq
        is_local = layers is not None and layers[layer_number - 1] == 1
        scaling = architecture.yarn or architecture.longrope
        if local_rope is not None and scaling is not None:
            config = _rope_config(config, scaling, is_local)
        super().__init__(config=config, layer_number=layer_number, **options)
        self.local_rope = local_rope if is_local else None
        if architecture.full_width_qk_norm:
            group = self.pg_collection.tp
            epsilon = architecture.layernorm_epsilon
            self.q_layernorm = FullWidthRMSNorm(config, architecture.query_size, epsilon, group)
            self.k_layernorm = FullWidthRMSNorm(config, architecture.key_value_size, epsilon, group)

    def forward(
        self,
        *arguments: Any,
        rotary_pos_emb: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what Megatron's self-attention does, with this layer's rotary positions.

        Args:
            arguments: of Megatron's self-attention.
            rotary_pos_emb: the positions of the layers without a window, [sequence, 1, 1, head
                size]: of this context-parallel rank, or of the longest document if packed.
            packed_seq_params: where packed documents begin.
            options: of Megatron's self-attention.
        """
        if self.local_rope is not None:
            assert rotary_pos_emb is not None
            rotary_pos_emb = self._local_positions(rotary_pos_emb.size(0), packed_seq_params)
        output: tuple[Tensor, Tensor | None] = super().forward(
            *arguments,
            rotary_pos_emb=rotary_pos_emb,
            packed_seq_params=packed_seq_params,
            **options,
        )
        return output

    def _local_positions(self, length: int, packed_seq_params: PackedSeqParams | None) -> Tensor:
        assert self.local_rope is not None
        if packed_seq_params is not None:
            group = packed_seq_params.cp_group
            if packed_seq_params.qkv_format == "thd":
                return self.local_rope(length, packed_seq=True, cp_group=group)
        else:
            group = None
        return self.local_rope(length * self.config.context_parallel_size, cp_group=group)


def _rope_config(
    config: TransformerConfig, scaling: Yarn | LongRope, is_local: bool
) -> TransformerConfig:
    """Return the configuration of a layer with rotary scaling, or without it if it is local."""
    layer_config = copy.copy(config)
    if is_local:
        # from these the core takes the factor of all rotated queries and keys
        for name in scaling.core_attributes():
            delattr(layer_config, name)
    elif scaling.scales_attention:
        layer_config.apply_rope_fusion = False
    return layer_config


class FullWidthRMSNorm(torch.nn.Module):
    """RMSNorm over all heads of queries or keys, which tensor parallelism divides.

    The mean square is that of the heads of all ranks. A rank holds the weights of its own heads.
    """

    def __init__(
        self, config: TransformerConfig, columns: int, epsilon: float, group: ProcessGroup
    ) -> None:
        """Build the norm.

        Args:
            config: of the model.
            columns: of all heads of all ranks.
            epsilon: added to the mean square.
            group: the tensor-parallel ranks.
        """
        super().__init__()
        self.columns = columns
        self.epsilon = epsilon
        self.group = group
        self.weight = torch.nn.Parameter(
            torch.ones(columns // group.size(), dtype=config.params_dtype)
        )
        set_tensor_model_parallel_attributes(self.weight, True, 0, 1)

    def forward(self, heads: Tensor) -> Tensor:
        """Return the normalized heads, [..., heads of this rank, head size]."""
        columns = heads.flatten(-2)
        if self.group.size() == 1:
            size = (self.columns,)
            normalized = torch.nn.functional.rms_norm(columns, size, self.weight, self.epsilon)
        else:
            normalized = _ShardedRMSNorm.apply(
                columns, self.weight, self.columns, self.epsilon, self.group
            )
        return normalized.view_as(heads)

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: Sequence[tuple[int, int, int]] = (),
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the weight as the part of a tensor that is divided among the ranks."""
        sharded: dict[str, Any] = make_sharded_tensors_for_checkpoint(
            self.state_dict(keep_vars=True), prefix, {"weight": 0}, sharded_offsets
        )
        return sharded


class _ShardedRMSNorm(torch.autograd.Function):
    """RMSNorm over columns that are divided among processes, computed in float32."""

    @staticmethod
    def forward(
        ctx: Any, part: Tensor, weight: Tensor, columns: int, epsilon: float, group: ProcessGroup
    ) -> Tensor:
        """Return the normalized columns of this process.

        Args:
            ctx: passes tensors to the backward pass.
            part: [..., columns of this process].
            weight: of these columns.
            columns: of all processes.
            epsilon: added to the mean square.
            group: the processes.
        """
        squares = part.float().square().sum(-1, keepdim=True)
        torch.distributed.all_reduce(squares, group=group)
        factor = torch.rsqrt(squares / columns + epsilon)
        ctx.save_for_backward(part, weight, factor)
        ctx.columns = columns
        ctx.group = group
        return (part.float() * factor * weight.float()).to(part.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of the columns and of their weight."""
        part, weight, factor = ctx.saved_tensors
        normalized = part.float() * factor
        gradient = gradients[0].float()
        weight_gradient = (gradient * normalized).flatten(0, -2).sum(0)
        gradient = gradient * weight.float()
        products = (gradient * normalized).sum(-1, keepdim=True)
        torch.distributed.all_reduce(products, group=ctx.group)
        part_gradient = (gradient - normalized * (products / ctx.columns)) * factor
        return (
            part_gradient.to(part.dtype),
            weight_gradient.to(weight.dtype),
            None,
            None,
            None,
        )
