"""Builds the model chunks of this process."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core import __version__ as core_version
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import layers
from megatron.core.transformer.transformer_config import TransformerConfig
from packaging.version import Version
from torch import Tensor

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.rope import LongRope
from megatron_ext.hardware.platforms import Platform
from megatron_ext.model.cross_entropy import BlockwiseCrossEntropy
from megatron_ext.model.layer_specs import decoder_spec


class LanguageModel(GPTModel):
    """Megatron's GPTModel whose loss leaves the padding of the vocabulary out.

    The embedding is padded to a multiple of 128 x tensor-parallel ranks. Megatron-LM lets the
    padded rows take part in the softmax, so that its loss depends on the layout; here they get no
    probability, as in the Hugging Face model.
    """

    def __init__(
        self,
        *,
        true_vocab_size: int,
        blockwise_loss: bool,
        scale_embeddings: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if scale_embeddings and self.pre_process:
            self.embedding.register_forward_hook(_scale_embeddings)
        self.blockwise_loss = blockwise_loss
        rows = self.vocab_size // parallel_state.get_tensor_model_parallel_world_size()
        first = rows * parallel_state.get_tensor_model_parallel_rank()
        self.true_rows = min(max(true_vocab_size - first, 0), rows)
        """Rows of this rank's part of the vocabulary that belong to a token."""
        self.padded = self.true_rows < rows

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Return the cross entropy per token, [batch, sequence].

        `logits` are [sequence, batch, vocabulary part].
        """
        if self.blockwise_loss:
            group = parallel_state.get_tensor_model_parallel_group()
            flat = labels.t().flatten()
            losses = BlockwiseCrossEntropy.apply(logits.flatten(0, 1), flat, self.true_rows, group)
            return losses.view(logits.shape[:2]).t().contiguous()
        if self.padded:
            padding = torch.arange(logits.size(-1), device=logits.device) >= self.true_rows
            logits = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
        return super().compute_language_model_loss(labels, logits)


def _scale_embeddings(embedding: LanguageModelEmbedding, _: Any, embedded: Tensor) -> Tensor:
    """Multiply embeddings by sqrt(hidden size), rounded to their weight's precision as in Gemma.

    The weight itself remains as it is for a tied output layer.
    """
    weight = embedding.word_embeddings.weight
    scale = torch.tensor(weight.size(1) ** 0.5).to(weight.dtype).item()
    return embedded * scale


def build_model(
    platform: Platform,
    architecture: Architecture,
    seq_length: int,
    vp_stage: int | None = None,
    **options: Any,
) -> LanguageModel:
    """Return this rank's part of the model, on its device, not yet wrapped for data parallelism.

    Args:
        platform: of this process.
        architecture: of the complete model.
        seq_length: maximum sequence length.
        vp_stage: index of the model chunk in this pipeline stage, under an interleaved pipeline.
        options: further fields of Megatron's TransformerConfig: parallel sizes, precision,
            recompute.

    Raises:
        UsageError: Megatron's model is not exact for sequences of this length.
    """
    architecture.check_seq_length(seq_length)
    architecture = architecture.without_idle_window(seq_length)
    if architecture.is_moe:
        options = platform.expert_options | options
    config = architecture.transformer_config(**platform.model_options, **options)
    if isinstance(config.cp_comm_type, list) and Version(core_version) < Version("0.17"):
        # which reads a layer's entry at its number, that begins at 1
        config.cp_comm_type = [config.cp_comm_type[0], *config.cp_comm_type]
    stage = {"ignore_virtual": False, "vp_stage": vp_stage}
    with _gradient_fusion_without_apex():
        model = LanguageModel(
            true_vocab_size=architecture.vocab_size,
            blockwise_loss=platform.blockwise_loss,
            scale_embeddings=architecture.scale_embeddings,
            config=config,
            transformer_layer_spec=decoder_spec(platform, architecture, config, vp_stage),
            vocab_size=architecture.padded_vocab_size(config.tensor_model_parallel_size),
            max_sequence_length=seq_length,
            pre_process=parallel_state.is_pipeline_first_stage(**stage),
            post_process=parallel_state.is_pipeline_last_stage(**stage),
            share_embeddings_and_output_weights=architecture.share_embeddings_and_output_weights,
            position_embedding_type="rope" if architecture.yarn is None else "yarn",
            rotary_base=architecture.rotary_base,
            rotary_percent=architecture.rotary_percent,
            seq_len_interpolation_factor=architecture.seq_len_interpolation_factor,
            rope_scaling=architecture.rope_scaling_factor is not None,
            rope_scaling_factor=architecture.rope_scaling_factor or 8.0,
            vp_stage=vp_stage,
        )
    if architecture.longrope is not None:
        _divide_frequencies(model, architecture.rotary_base, architecture.longrope)
    if not layers._grad_accum_fusion_available:
        _unfuse_core_layers(model)
    model.to(platform.device)
    _mark_sinks(model)
    _mark_expert_parameters(model, config)
    return model


def _mark_expert_parameters(model: LanguageModel, config: TransformerConfig) -> None:
    """Mark the parameters of experts that expert parallelism divides among tensor-parallel ranks.

    The core would count only the first rank's biases in the norm of the gradient, and add the
    gradients of the biases of different experts.
    """
    if config.expert_tensor_parallel_size != 1:
        return
    for parameter in model.parameters():
        if not getattr(parameter, "allreduce", True):
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
            parameter.sequence_parallel = False  # type: ignore[attr-defined]


def _mark_sinks(model: LanguageModel) -> None:
    """Mark attention sinks as divided by tensor parallelism, which the core omits (up to 0.19.2).

    Of an unmarked weight, the norm of the gradient counts only the first rank's.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(".softmax_offset") and not hasattr(parameter, "tensor_model_parallel"):
            layers.set_tensor_model_parallel_attributes(
                tensor=parameter, is_parallel=True, dim=0, stride=1
            )


def _divide_frequencies(model: LanguageModel, base: float, longrope: LongRope) -> None:
    """Give a model the rotary frequencies of LongRoPE for short sequences."""
    rotary = model.rotary_pos_emb
    factors = torch.tensor(longrope.short_factor, device=rotary.inv_freq.device)
    exponents = torch.arange(len(factors), device=factors.device).float() / len(factors)
    rotary.inv_freq = 1.0 / (factors * base**exponents)


@contextlib.contextmanager
def _gradient_fusion_without_apex() -> Iterator[None]:
    """Let the core build a model with `gradient_accumulation_fusion` where apex is missing.

    Its own layers refuse that (0.16.1 and 0.19.2). Under Transformer Engine, whose layers need no
    apex, the only one of them is the output layer.
    """
    available = layers._grad_accum_fusion_available
    layers._grad_accum_fusion_available = True
    try:
        yield
    finally:
        layers._grad_accum_fusion_available = available


def _unfuse_core_layers(model: LanguageModel) -> None:
    """Turn `gradient_accumulation_fusion` off in the layers that would call apex."""
    for module in model.modules():
        if isinstance(module, layers.ColumnParallelLinear | layers.RowParallelLinear):
            module.gradient_accumulation_fusion = False
