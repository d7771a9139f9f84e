"""How much memory each rank of a run needs, by pipeline stage; no torch here.

Weights, gradients and optimizer state are counted as Megatron Core allocates them. Activations are
the tensors that the backward pass needs, after Korthikanti et al. 2022 (arXiv 2205.05198, section
4), counted anew for RMSNorm, rotary positions, grouped-query fused attention and a gated MLP,
without dropout.
"""

import dataclasses
import math
from typing import Any

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe

# CUDA context, NCCL's buffers, the allocator's fragments: an allowance, not measured here.
RESERVE = 6 * 2**30
OPTIMIZER_STATE = 3 * 4  # bytes for a weight in a checkpoint
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
"""Of a number of each type."""


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
    """At the fullest moment of a step."""
    logits: float
    """Those of one micro-batch and the loss's copies, if held at that moment (last stage only)."""

    @property
    def total(self) -> float:
        """All of it, without the reserve."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def stage_layers(recipe: Recipe, layers: int) -> list[int]:
    """Return the number of layers of each pipeline stage."""
    parallel = recipe.parallel
    stages = parallel.pipeline_model_parallel_size
    first, last = (
        parallel.num_layers_in_first_pipeline_stage,
        parallel.num_layers_in_last_pipeline_stage,
    )
    given = [n for n in (first, last) if n is not None]
    even = (layers - sum(given)) // max(stages - len(given), 1)
    result = [even] * stages
    if last is not None:
        result[-1] = last
    if first is not None:
        result[0] = first
    return result


def stage_parameters(architecture: Architecture, recipe: Recipe, stage: int) -> int:
    """Return the weights on one rank of a stage, padded rows of the vocabulary included."""
    shape, parallel = architecture, recipe.parallel
    tensor, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    queries, keys = (
        shape.num_attention_heads * shape.kv_channels,
        shape.num_query_groups * shape.kv_channels,
    )
    layer = (
        shape.hidden_size * (2 * queries + 2 * keys) + 3 * shape.hidden_size * shape.ffn_hidden_size
    ) // tensor
    layer += (queries + 2 * keys) // tensor if shape.add_qkv_bias else 0
    # norms: on every rank
    layer += 2 * shape.hidden_size + (2 * shape.kv_channels if shape.qk_layernorm else 0)
    rows = shape.padded_vocab_size(tensor) * shape.hidden_size // tensor
    total = stage_layers(recipe, shape.num_layers)[stage] * layer
    if stage == 0:
        total += rows
    if stage == stages - 1:
        shared_here = shape.share_embeddings_and_output_weights and stages == 1
        total += shape.hidden_size + (0 if shared_here else rows)
    return total


def data_parallel_size(recipe: Recipe, gpus: int) -> int:
    """Return the number of replicas of the model, context-parallel ranks not among them."""
    parallel = recipe.parallel
    return gpus // (
        parallel.tensor_model_parallel_size
        * parallel.pipeline_model_parallel_size
        * parallel.context_parallel_size
    )


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
    """Return the bytes that one layer keeps of one micro-batch on one rank, by what they are.

    Args:
        architecture: the model.
        recipe: its layout, precision and what it recomputes.
        fused: whether norms and SwiGLU are kernels that keep their input alone (CUDA), or PyTorch's
            parts, which keep more (CPU).
    """
    shape, parallel, training = architecture, recipe.parallel, recipe.training
    tensor = parallel.tensor_model_parallel_size
    size = BYTES[training.precision]
    tokens = micro_batch_tokens(recipe)
    # rows on this rank outside the matrix products
    outside = tokens / (tensor if parallel.sequence_parallel else 1)
    hidden = size * outside * shape.hidden_size
    if training.recompute_granularity == "full":
        return {"layer input": hidden}
    modules = (
        (training.recompute_modules or ["core_attn"])
        if training.recompute_granularity == "selective"
        else []
    )
    queries, keys = (
        shape.num_attention_heads * shape.kv_channels,
        shape.num_query_groups * shape.kv_channels,
    )
    wide = tokens * shape.ffn_hidden_size / tensor
    # Transformer Engine keeps the input of an FP8 product in FP8
    entering = 1 if training.fp8_format else size
    parts = {
        "norm inputs": 2 * hidden,
        "norm outputs": 2 * hidden * entering / size,
        "norm statistics": 2 * 4 * outside,
    }
    parts["queries, keys, values"] = size * tokens * (queries + 2 * keys) / tensor
    parts["attention output"] = (
        (size + (1 if training.fp8_format else 0)) * tokens * queries / tensor
    )
    parts["attention statistics"] = 4 * tokens * shape.num_attention_heads / tensor
    parts["MLP gate and up"] = 2 * size * wide
    parts["MLP product"] = entering * wide
    if not fused:
        # in float32, and once more normalised
        parts["norm inputs"] = 2 * 2 * 4 * outside * shape.hidden_size
        # the values keep the whole they are a part of
        parts["queries, keys, values"] += size * tokens * (queries + keys) / tensor
        parts["rotary factors"] = 4 * size * tokens / training.micro_batch_size * shape.kv_channels
        parts["MLP product"] = 3 * size * wide
    if "core_attn" in modules:
        parts["attention statistics"] = 0
    if "layernorm" in modules:
        parts["norm outputs"] = 0
    if "mlp" in modules:
        parts["MLP gate and up"] = parts["MLP product"] = 0
    return parts


def layers_in_flight(recipe: Recipe, layers: list[int], stage: int, batches: int) -> float:
    """Return how many layers' activations a stage holds at its peak.

    A layer counts once for each micro-batch.

    1F1B: stage p of P holds P - p micro-batches. Interleaved in V pieces: 2 (P - p - 1) + (V - 1) P
    + 1 pieces (Narayanan et al. 2021, arXiv 2104.04473, section 2.2; Megatron Core's warm-up).
    """
    stages = recipe.parallel.pipeline_model_parallel_size
    pieces = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    if pieces == 1:
        return min(stages - stage, batches) * layers[stage]
    held = min(2 * (stages - stage - 1) + (pieces - 1) * stages + 1, batches * pieces)
    return held * layers[stage] / pieces


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
    """Return what one rank of a pipeline stage needs, in bytes."""
    parallel, training, options = recipe.parallel, recipe.training, recipe.optimizer
    layers = stage_layers(recipe, architecture.num_layers)
    parameters = stage_parameters(architecture, recipe, stage)
    size = BYTES[training.precision]
    weight_bytes = 1 if training.fp8_param_gather else size
    shards = data_parallel_size(recipe, gpus) * parallel.context_parallel_size
    state = BYTES[options.exp_avg_dtype] + BYTES[options.exp_avg_sq_dtype]
    # fp32 weights are their own copy
    state += 0 if training.precision == "fp32" else BYTES[options.main_params_dtype]
    on_device = 1 - options.optimizer_offload_fraction if options.optimizer_cpu_offload else 1
    activations, logits = max(moments(architecture, recipe, gpus, stage, fused), key=sum)
    return StageMemory(
        layers=layers[stage],
        parameters=parameters,
        weights=weight_bytes * parameters,
        gradients=BYTES[options.main_grads_dtype] * parameters,
        optimizer=on_device * state * math.ceil(parameters / shards),
        activations=activations,
        logits=logits,
    )


def moments(
    architecture: Architecture, recipe: Recipe, gpus: int, stage: int, fused: bool = True
) -> list[tuple[float, float]]:
    """Return a stage's possible memory peaks in a step: bytes of activations and of logits.

    One is the loss (on other stages than the last, the end of the forward passes in flight); with
    recompute the other is the backward pass of what is computed again, when the logits are gone.
    """
    parallel, training = recipe.parallel, recipe.training
    layers = stage_layers(recipe, architecture.num_layers)
    in_flight = layers_in_flight(recipe, layers, stage, micro_batches(recipe, gpus))
    kept, again = _kept_activations(architecture, recipe, fused, layers[stage], in_flight)
    found = [(kept, 0.0)]
    # the final norm's and the output layer's inputs
    if stage == parallel.pipeline_model_parallel_size - 1:
        rows = micro_batch_tokens(recipe) / (
            parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
        )
        size = BYTES[training.precision]
        final = rows * ((2 * size if fused else 8 + size) * architecture.hidden_size + 4)
        found = [(kept + final, sum(logits_bytes(architecture, recipe).values()))]
    return [*found, (kept + again, 0.0)]


def _kept_activations(
    architecture: Architecture, recipe: Recipe, fused: bool, layers: int, in_flight: float
) -> tuple[float, float]:
    """Return the bytes that a stage of `layers` layers keeps, and those that recompute adds.

    Recompute adds them in the backward pass.

    Args:
        architecture: the model.
        recipe: what it recomputes.
        fused: as for `layer_activations`.
        layers: of the stage.
        in_flight: layers whose activations are held at once, one counted for each micro-batch.
    """
    training, pieces = recipe.training, recipe.parallel.virtual_pipeline_model_parallel_size or 1
    kept = sum(layer_activations(architecture, recipe, fused).values())
    whole = sum(layer_activations(architecture, without_recompute(recipe), fused).values())
    # selective: one layer's modules at a time, nothing without
    if training.recompute_granularity != "full":
        return in_flight * kept, whole - kept
    number = training.recompute_num_layers or 1
    # PyTorch's norm keeps a float32 copy of a layer's input besides
    shared = kept if fused or training.precision == "fp32" else 0.0
    # the first `number` layers of each piece, one at a time, when the others are gone
    if training.recompute_method == "block":
        piece = layers // pieces
        rest = max(piece - number, 0)
        return (
            in_flight * ((piece - rest) * kept + rest * whole) / piece,
            whole - shared - rest * whole,
        )
    # the group whose backward pass runs is whole
    return in_flight / number * kept, number * whole - shared


def checkpoint_bytes(architecture: Architecture, recipe: Recipe) -> float:
    """Return the size of a checkpoint.

    It holds the weights, and in float32 the optimizer's copy of them and its two averages.
    """
    return (BYTES[recipe.training.precision] + OPTIMIZER_STATE) * architecture.parameters


def checkpoint_staging(architecture: Architecture, recipe: Recipe) -> float:
    """Return the bytes of host memory that a process needs while it writes a checkpoint.

    Megatron Core's `fully_reshardable` form, which lets the layout change, gathers in each process
    what its replicas hold of the optimizer's state.
    """
    stages = recipe.parallel.pipeline_model_parallel_size
    return OPTIMIZER_STATE * max(
        stage_parameters(architecture, recipe, stage) for stage in range(stages)
    )


def all_stages(architecture: Architecture, recipe: Recipe, gpus: int) -> list[StageMemory]:
    """Return the memory of every pipeline stage."""
    return [
        stage_memory(architecture, recipe, gpus, stage)
        for stage in range(recipe.parallel.pipeline_model_parallel_size)
    ]
