"""Weights, gradients and optimizer state of a run by pipeline stage; no torch here.

They are counted as Megatron Core and Transformer Engine allocate them.
"""

import math

from megatron_ext.config import pipeline_layout
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import experts
from megatron_ext.planner.experts import BYTES

OPTIMIZER_STATE = 3 * 4  # bytes for a weight in a checkpoint
_FP8_COPIES = 2
"""Of an FP8 weight on Hopper, whose FP8 GEMMs take transposed operands only."""


def stage_layers(recipe: Recipe, layers: int) -> list[int]:
    """Return the number of layers of each pipeline stage."""
    return pipeline_layout.stage_layers(recipe.parallel, layers)


def stage_parameters(architecture: Architecture, recipe: Recipe, stage: int) -> int:
    """Return the weights on one rank of a stage, padded rows of the vocabulary included."""
    dense = _dense_parameters(architecture, recipe, stage)
    return dense + _expert_parameters(architecture, recipe, stage)


def _dense_parameters(architecture: Architecture, recipe: Recipe, stage: int) -> int:
    """Return the weights on one rank of a stage, those of experts not among them."""
    tensor = recipe.parallel.tensor_model_parallel_size
    stages = recipe.parallel.pipeline_model_parallel_size
    layer = architecture.layer_dense_matrix_parameters // tensor
    layer += architecture.layer_sharded_vector_parameters // tensor
    layer += architecture.layer_output_bias_parameters + architecture.layer_norm_parameters
    layer += architecture.layer_activation_parameters + architecture.layer_router_parameters
    embedding = architecture.padded_vocab_size(tensor) * architecture.hidden_size // tensor
    total = stage_layers(recipe, architecture.num_layers)[stage] * layer
    if stage == 0:
        total += embedding
    if stage == stages - 1:
        total += architecture.hidden_size  # the final norm
        if not architecture.share_embeddings_and_output_weights or stages > 1:
            total += embedding  # the output layer
    return total


def _expert_parameters(architecture: Architecture, recipe: Recipe, stage: int) -> int:
    """Return the weights of experts on one rank of a stage."""
    layers = stage_layers(recipe, architecture.num_layers)[stage]
    return layers * experts.layer_parameters(architecture, recipe)


def optimizer_shard(architecture: Architecture, recipe: Recipe, gpus: int, stage: int) -> int:
    """Return the weights whose optimizer state one rank of a stage holds.

    Replicas divide the state: of experts, the ranks that hold copies of the same ones.
    """
    replicas = data_parallel_size(recipe, gpus) * recipe.parallel.context_parallel_size
    dense = math.ceil(_dense_parameters(architecture, recipe, stage) / replicas)
    copies = experts.data_parallel_size(recipe, gpus)
    return dense + math.ceil(_expert_parameters(architecture, recipe, stage) / copies)


def bf16_layers(recipe: Recipe, layers: int, stage: int) -> int:
    """Return how many of a stage's `layers` layers stay out of FP8."""
    training = recipe.training
    if training.fp8_format is None:
        return layers
    if not training.first_last_layers_bf16:
        return 0
    count = 0
    if stage == 0:
        count += training.num_layers_at_start_in_bf16
    if stage == recipe.parallel.pipeline_model_parallel_size - 1:
        count += training.num_layers_at_end_in_bf16
    return min(count, layers)


def weight_bytes(architecture: Architecture, recipe: Recipe, stage: int) -> int:
    """Return the bytes of the weights on one rank of a stage.

    FP8 GEMMs on Hopper need a weight by rows and, for the input's gradient, by columns. Transformer
    Engine keeps both copies; `fp8_param_gather` saves the bf16 weight beside them. Norms,
    embedding, output layer and the layers kept out of FP8 have the recipe's precision alone.
    """
    training = recipe.training
    size = BYTES[training.precision]
    layers = stage_layers(recipe, architecture.num_layers)[stage]
    in_fp8 = layers - bf16_layers(recipe, layers, stage)
    tensor = recipe.parallel.tensor_model_parallel_size
    matrices = architecture.layer_dense_matrix_parameters // tensor
    matrices += experts.layer_matrix_parameters(architecture, recipe)
    fp8_weights = in_fp8 * matrices
    copies = _FP8_COPIES * BYTES["fp8"]
    fp8_bytes = copies if training.fp8_param_gather else size + copies
    return size * (stage_parameters(architecture, recipe, stage) - fp8_weights) + (
        fp8_bytes * fp8_weights
    )


def gradient_bytes(recipe: Recipe) -> int:
    """Return the bytes of a weight's gradient.

    Local accumulation in fp32 is counted as if its patterns named all weights.
    """
    options = recipe.optimizer
    accumulated = options.ddp_param_name_patterns_for_fp32_local_accumulation
    return BYTES[options.gradients_dtype] + (BYTES["fp32"] if accumulated else 0)


def optimizer_bytes(recipe: Recipe) -> tuple[int, int]:
    """Return the bytes of optimizer state for a weight, and those that a step adds.

    With the precision-aware optimizer, Transformer Engine's Adam reads bf16 gradients and keeps
    only the lower half of each float32 weight, whose upper half is the bf16 weight. Not so with
    FP8's current or block scaling: Megatron Core then keeps float32 weights, and a step copies
    gradients to float32 (`use_precision_aware_optimizer_no_fp8_or_ds_fp8` in its OptimizerConfig).
    """
    options = recipe.optimizer
    training = recipe.training
    moments = BYTES[options.exp_avg_dtype] + BYTES[options.exp_avg_sq_dtype]
    # float32 weights are their own copy
    if training.precision == "fp32":
        return moments, 0
    in_adam = options.use_precision_aware_optimizer and (
        options.main_params_dtype != "fp32"
        or training.fp8_format is None
        or training.fp8_recipe == "delayed"
        or options.optimizer_cpu_offload
    )
    if not in_adam:
        copied = options.gradients_dtype != "fp32"
        return moments + BYTES[options.main_params_dtype], 4 if copied else 0
    remainders = options.main_params_dtype == "fp32" and not options.optimizer_cpu_offload
    return moments + (2 if remainders else BYTES[options.main_params_dtype]), 0


def data_parallel_size(recipe: Recipe, gpus: int) -> int:
    """Return the number of replicas of the model, context-parallel ranks not among them."""
    parallel = recipe.parallel
    return gpus // (
        parallel.tensor_model_parallel_size
        * parallel.pipeline_model_parallel_size
        * parallel.context_parallel_size
    )


def checkpoint_bytes(architecture: Architecture, recipe: Recipe) -> float:
    """Return the size of a checkpoint.

    It holds the weights, and in float32 the optimizer's copy of them and its two averages.
    """
    return (BYTES[recipe.training.precision] + OPTIMIZER_STATE) * architecture.parameters


def checkpoint_staging(architecture: Architecture, recipe: Recipe, gpus: int) -> float:
    """Return the bytes of host memory that a process needs while it writes its largest checkpoint.

    Megatron Core's `fully_reshardable` format, of the last checkpoint, gathers in each process its
    replicas' optimizer state. In `dp_reshardable` each process copies its own part.
    """
    if recipe.training.dist_ckpt_optim_fully_reshardable == "never":
        return checkpoint_bytes(architecture, recipe) / gpus
    stages = recipe.parallel.pipeline_model_parallel_size
    return OPTIMIZER_STATE * max(
        stage_parameters(architecture, recipe, stage) for stage in range(stages)
    )
