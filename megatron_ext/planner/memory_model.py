"""Memory of each rank of a run, by pipeline stage; no torch here.

Weights, gradients and optimizer state are counted as Megatron Core allocates them. Activations are
the tensors that the backward pass needs, after Korthikanti et al. 2022 (arXiv 2205.05198, section
4), recounted for RMSNorm, rotary positions and grouped-query fused attention, without dropout;
`Architecture` says how many norms and projections of the MLP there are.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from megatron_ext.config import pipeline_layout
from megatron_ext.config.activations import ACTIVATIONS
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Training
from megatron_ext.planner import experts
from megatron_ext.planner.experts import BYTES
from megatron_ext.planner.model_state import (
    bf16_layers,
    data_parallel_size,
    gradient_bytes,
    optimizer_bytes,
    optimizer_shard,
    stage_layers,
    stage_parameters,
    weight_bytes,
)

# CUDA context, NCCL's buffers, the allocator's fragments: an allowance, not measured here.
RESERVE = 6 * 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes on each rank of one pipeline stage."""

    layers: int
    parameters: int
    """On one rank."""
    weights: float
    gradients: float
    optimizer: float
    activations: float
    """At the peak of the forward and backward passes."""
    logits: float
    """Of one micro-batch, with the loss's copies, if held at the peak (last stage only)."""
    dispatch: float
    """Tokens in flight while a layer exchanges them between experts."""
    optimizer_step: float
    """Float32 copies of the gradients in the optimizer's step, when activations are freed."""

    @property
    def total(self) -> float:
        """Bytes at the peak, without the reserve."""
        passes = self.activations + self.dispatch + self.logits
        return self.weights + self.gradients + self.optimizer + max(passes, self.optimizer_step)


def micro_batches(recipe: Recipe, gpus: int) -> int:
    """Return the micro-batches of one replica in a step."""
    return recipe.training.global_batch_size // (
        recipe.training.micro_batch_size * data_parallel_size(recipe, gpus)
    )


def micro_batch_tokens(recipe: Recipe) -> int:
    """Return the tokens of a micro-batch on one rank: context parallelism shares each sequence."""
    return (
        recipe.data.seq_length
        // recipe.parallel.context_parallel_size
        * recipe.training.micro_batch_size
    )


def without_recompute(recipe: Recipe) -> Recipe:
    """Return the recipe with all activations kept."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("recompute_granularity", "recompute_modules", "recompute_method", "recompute_num_layers")
    )
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **nothing))


def layer_activations(
    architecture: Architecture, recipe: Recipe, fused: bool = True
) -> dict[str, float]:
    """Return the bytes of one layer's activations of one micro-batch on one rank, by tensor.

    Args:
        architecture: the model.
        recipe: its layout, precision and recompute.
        fused: whether norms and SwiGLU are fused kernels that keep only their input (CUDA), or
            PyTorch's functions, which keep more (CPU).
    """
    parallel = recipe.parallel
    training = recipe.training
    tensor = parallel.tensor_model_parallel_size
    size = BYTES[training.precision]
    # Transformer Engine keeps the input of an FP8 product in FP8
    gemm_input_size = 1 if training.fp8_format else size
    tokens = micro_batch_tokens(recipe)
    # tokens on this rank outside the tensor-parallel products
    sequence_tokens = tokens / (tensor if parallel.sequence_parallel else 1)
    hidden_states = size * sequence_tokens * architecture.hidden_size
    if training.recompute_granularity == "full":
        return {"layer input": hidden_states}
    queries = architecture.query_size
    keys = architecture.key_value_size
    attention_output_size = size + (1 if training.fp8_format else 0)
    norms = architecture.num_norms_per_layer
    # of the first products of attention and MLP, the outputs of norms before these; the router of
    # experts takes its in full precision
    norm_output_sizes = gemm_input_size + (size if architecture.is_moe else gemm_input_size)
    activations = {
        "norm inputs": norms * hidden_states,
        "norm outputs": norm_output_sizes * hidden_states / size,
        "norm statistics": norms * 4 * sequence_tokens,
        "queries, keys, values": size * tokens * (queries + 2 * keys) / tensor,
        "attention output": attention_output_size * tokens * queries / tensor,
        "attention statistics": 4 * tokens * architecture.num_attention_heads / tensor,
        **_mlp_activations(architecture, recipe, fused),
    }
    activations |= _unfused_attention_activations(architecture, recipe, fused)
    if not fused:
        # in float32, and once more normalized
        activations["norm inputs"] = 2 * norms * 4 * sequence_tokens * architecture.hidden_size
        # the values keep the fused tensor that they are a view of
        activations["queries, keys, values"] += size * tokens * (queries + keys) / tensor
    for name in _recomputed_activations(training):
        activations[name] = 0
    if fused and architecture.norms_before and "mlp" in (training.recompute_modules or []):
        # the norm before the MLP is a part of its first product, and recomputed with it
        activations["norm outputs"] /= 2
    return activations


def _unfused_attention_activations(
    architecture: Architecture, recipe: Recipe, fused: bool
) -> dict[str, float]:
    """Return the bytes of attention outside its main kernels; see `layer_activations`."""
    training = recipe.training
    tensor = recipe.parallel.tensor_model_parallel_size
    size = BYTES[training.precision]
    tokens = micro_batch_tokens(recipe)
    activations: dict[str, float] = {}
    if architecture.qk_layernorm or architecture.full_width_qk_norm:
        # in PyTorch in float32, and once more normalized; not in the norm over several ranks' heads
        sharded = architecture.full_width_qk_norm and tensor > 1
        norm_size = size if fused or sharded else 8
        channels = architecture.query_size + architecture.key_value_size
        activations["query and key norms"] = norm_size * tokens * channels / tensor
    fused_rope = architecture.num_fusible_rope_layers / architecture.num_layers if fused else 0
    if fused_rope < 1:
        rotary_tokens = tokens / training.micro_batch_size
        rotary_factors = 4 * size * rotary_tokens * architecture.kv_channels
        activations["rotary factors"] = (1 - fused_rope) * rotary_factors
    if architecture.softmax_type == "learnable" and not fused:
        # further channels of queries, keys, values and output, see model/attention.py
        channels = 8 - architecture.kv_channels % 8
        vectors = 2 * architecture.num_attention_heads + 2 * architecture.num_query_groups
        activations["attention sinks"] = size * tokens * channels * vectors / tensor
    if training.attention_backend == "unfused":
        # scores and probabilities
        heads = architecture.num_attention_heads / tensor
        activations["attention scores"] = 2 * size * tokens * heads * recipe.data.seq_length
    return activations


def _mlp_activations(architecture: Architecture, recipe: Recipe, fused: bool) -> dict[str, float]:
    """Return the bytes of the MLP's activations, or of those of router and experts."""
    training = recipe.training
    size = BYTES[training.precision]
    copies = _product_copies(architecture, fused)
    if architecture.is_moe:
        return experts.layer_activations(architecture, recipe, fused, copies)
    tensor = recipe.parallel.tensor_model_parallel_size
    entries = micro_batch_tokens(recipe) * architecture.ffn_hidden_size / tensor
    product_size = 1 if training.fp8_format else size
    return {
        "MLP gate and up": architecture.mlp_input_projections * size * entries,
        "MLP product": (product_size + (copies - 1) * size) * entries,
    }


def _product_copies(architecture: Architecture, fused: bool) -> int:
    """Return the tensors of the size of an MLP's product that its activation keeps.

    With a gate that is not fused these are also the activation's output and a copy of up; the gate
    if it is clamped, and the sigmoid of quick_gelu.
    """
    activation = ACTIVATIONS[architecture.activation]
    if not architecture.gated_mlp or (fused and activation.fused_function is not None):
        return 1
    clamped = architecture.activation_func_clamp_value is not None
    return 3 + clamped + (architecture.activation == "quick_gelu")


_RECOMPUTED = {
    "core_attn": ("attention statistics", "attention scores", "attention sinks"),
    "mlp": ("MLP gate and up", "MLP product"),
    "moe": (
        "router",
        "dispatched tokens",
        "expert gate and up",
        "expert product",
        "shared expert",
    ),
    "moe_act": ("expert product",),
    "shared_experts": ("shared expert",),
}
"""Activations that selective recompute of a module saves."""


def _recomputed_activations(training: Training) -> list[str]:
    """Return the names of the activations that selective recompute saves."""
    names: list[str] = []
    for module in training.recompute_modules or []:
        names += _RECOMPUTED[module]
    return names


def layers_in_flight(
    recipe: Recipe, layers: list[int], stage: int, batches: int, at_loss: bool = False
) -> float:
    """Return how many layers' activations a stage holds at its peak, or when it computes a loss.

    A layer counts once for each micro-batch.

    1F1B: stage p of P holds P - p micro-batches. Interleaved in V chunks: 2 (P - p - 1) + (V - 1) P
    + 1 chunks (Narayanan et al. 2021, arXiv 2104.04473, section 2.2; Megatron Core's warm-up).
    """
    stages = recipe.parallel.pipeline_model_parallel_size
    chunks = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    if chunks == 1:
        offloaded = recipe.training.cpu_offloading_num_layers  # 0 in a pipeline
        return min(stages - stage, batches) * (layers[stage] - offloaded)
    in_flight = min(2 * (stages - stage - 1) + (chunks - 1) * stages + 1, batches * chunks)
    chunk_layers = pipeline_layout.chunk_layers(recipe.parallel, sum(layers))[stage]
    if len(set(chunk_layers)) == 1:
        return in_flight * chunk_layers[0]
    held = _layers_held(chunk_layers, stages, in_flight, batches)
    return max(number for chunk, number in held if chunk == chunks - 1 or not at_loss)


def _layers_held(
    chunk_layers: list[int], stages: int, in_flight: int, batches: int
) -> Iterator[tuple[int, int]]:
    """Yield the chunk of each forward pass, and the layers that a stage holds after it.

    An interleaved pipeline runs as many micro-batches as it has stages through a chunk, then
    through the next one; backward from the last chunk. After the warm-up of `in_flight` forward
    passes, a backward pass comes before each further one.
    """
    order = [chunk for chunk in range(len(chunk_layers)) for _ in range(stages)]
    backward_order = order[::-1]
    held = 0
    for number in range(batches * len(chunk_layers)):
        chunk = order[number % len(order)]
        held += chunk_layers[chunk]
        if number >= in_flight:
            held -= chunk_layers[backward_order[(number - in_flight) % len(order)]]
        yield chunk, held


def logits_bytes(architecture: Architecture, recipe: Recipe) -> dict[str, float]:
    """Return the bytes of one micro-batch's logits on one rank.

    They are the computed logits, the loss's float32 softmax, and their gradient.
    """
    tensor = recipe.parallel.tensor_model_parallel_size
    entries = micro_batch_tokens(recipe) * architecture.padded_vocab_size(tensor) / tensor
    size = BYTES[recipe.training.precision]
    return {"logits": size * entries, "softmax": 4 * entries, "gradient": size * entries}


def stage_memory(
    architecture: Architecture, recipe: Recipe, gpus: int, stage: int, fused: bool = True
) -> StageMemory:
    """Return the memory of one rank of a pipeline stage."""
    options = recipe.optimizer
    layers = stage_layers(recipe, architecture.num_layers)
    parameters = stage_parameters(architecture, recipe, stage)
    shard = optimizer_shard(architecture, recipe, gpus, stage)
    state, step_bytes = optimizer_bytes(recipe)
    on_device = 1 - options.optimizer_offload_fraction if options.optimizer_cpu_offload else 1
    activations, logits = max(peak_candidates(architecture, recipe, gpus, stage, fused), key=sum)
    return StageMemory(
        layers=layers[stage],
        parameters=parameters,
        weights=weight_bytes(architecture, recipe, stage),
        gradients=gradient_bytes(recipe) * parameters,
        optimizer=on_device * state * shard,
        activations=activations,
        logits=logits,
        dispatch=experts.flight_bytes(architecture, recipe),
        optimizer_step=step_bytes * shard,
    )


def peak_candidates(
    architecture: Architecture, recipe: Recipe, gpus: int, stage: int, fused: bool = True
) -> list[tuple[float, float]]:
    """Return a stage's possible memory peaks in a step: bytes of activations and of logits.

    One is the loss (on other stages than the last, the end of the forward passes in flight); the
    other, with recompute, is the backward pass of recomputed layers, after the logits are freed.
    """
    parallel = recipe.parallel
    training = recipe.training
    layers = stage_layers(recipe, architecture.num_layers)
    batches = micro_batches(recipe, gpus)
    in_flight = layers_in_flight(recipe, layers, stage, batches)
    kept, recomputed = _kept_activations(architecture, recipe, fused, stage, in_flight)
    candidates = [(kept, 0.0)]
    if stage == parallel.pipeline_model_parallel_size - 1:
        tokens = micro_batch_tokens(recipe) / (
            parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
        )
        size = BYTES[training.precision]
        # the inputs of the final norm and of the output layer
        inputs = tokens * ((2 * size if fused else 8 + size) * architecture.hidden_size + 4)
        in_flight = layers_in_flight(recipe, layers, stage, batches, at_loss=True)
        kept_at_loss, _ = _kept_activations(architecture, recipe, fused, stage, in_flight)
        logits = sum(logits_bytes(architecture, recipe).values())
        candidates.append((kept_at_loss + inputs, logits))
    return [*candidates, (kept + recomputed, 0.0)]


def _kept_activations(
    architecture: Architecture, recipe: Recipe, fused: bool, stage: int, in_flight: float
) -> tuple[float, float]:
    """Return the bytes that a stage keeps, and those that recompute adds.

    Recompute adds them in the backward pass.

    Args:
        architecture: the model.
        recipe: its recompute.
        fused: as for `layer_activations`.
        stage: pipeline stage.
        in_flight: layers whose activations are held at once, one counted for each micro-batch.
    """
    training = recipe.training
    chunks = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    layers = stage_layers(recipe, architecture.num_layers)[stage]
    kept = _mean_activations(architecture, recipe, fused, stage)
    full = _mean_activations(architecture, without_recompute(recipe), fused, stage)
    # selective: one layer's modules at a time, nothing without
    if training.recompute_granularity != "full":
        return in_flight * kept, full - kept
    number = training.recompute_num_layers or 1
    # PyTorch's norm also keeps a float32 copy of a layer's input
    shared = kept if fused or training.precision == "fp32" else 0.0
    # the first `number` layers of each chunk, one at a time, after the others are freed
    if training.recompute_method == "block":
        chunk_layers = max(layers // chunks, 1)
        others = max(chunk_layers - number, 0)
        return (
            in_flight * ((chunk_layers - others) * kept + others * full) / chunk_layers,
            full - shared - others * full,
        )
    # the group whose backward pass runs is complete
    return in_flight / number * kept, number * full - shared


def _mean_activations(architecture: Architecture, recipe: Recipe, fused: bool, stage: int) -> float:
    """Return the bytes of a layer's activations, the mean of a stage's FP8 and other layers."""
    layers = stage_layers(recipe, architecture.num_layers)[stage]
    others = bf16_layers(recipe, layers, stage)
    training = dataclasses.replace(
        recipe.training, fp8_format=None, fp8_param_gather=False, first_last_layers_bf16=False
    )
    without_fp8 = dataclasses.replace(recipe, training=training)
    in_fp8 = sum(layer_activations(architecture, recipe, fused).values())
    in_bf16 = sum(layer_activations(architecture, without_fp8, fused).values())
    return ((layers - others) * in_fp8 + others * in_bf16) / layers


def all_stages(architecture: Architecture, recipe: Recipe, gpus: int) -> list[StageMemory]:
    """Return the memory of every pipeline stage."""
    return [
        stage_memory(architecture, recipe, gpus, stage)
        for stage in range(recipe.parallel.pipeline_model_parallel_size)
    ]
