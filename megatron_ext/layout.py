"""Sets up Megatron's process groups and turns a recipe into the layout's part of the model configuration."""

import random
from typing import Any

import numpy
import torch
from megatron.core import parallel_state, tensor_parallel

from megatron_ext.recipe import Parallel, Recipe

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def initialize(parallel: Parallel, seed: int) -> None:
    """Divide the processes into Megatron's groups and seed every generator (collective)."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
    )
    # Stages draw different numbers, replicas of one stage the same, as in Megatron-LM.
    stage_seed = seed + 100 * parallel_state.get_pipeline_model_parallel_rank()
    random.seed(stage_seed)
    numpy.random.seed(stage_seed)
    torch.manual_seed(stage_seed)
    tensor_parallel.model_parallel_cuda_manual_seed(stage_seed)


def sizes() -> list[int]:
    """Return tensor, pipeline and data parallel sizes."""
    return [
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(),
    ]


def ranks() -> list[int]:
    """Return this process's place in each of `sizes`."""
    return [
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(),
    ]


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of Megatron's TransformerConfig that a recipe decides."""
    dtype = _DTYPES[recipe.training.precision]
    options: dict[str, Any] = {
        "tensor_model_parallel_size": recipe.parallel.tensor_model_parallel_size,
        "pipeline_model_parallel_size": recipe.parallel.pipeline_model_parallel_size,
        "num_layers_in_first_pipeline_stage": recipe.parallel.num_layers_in_first_pipeline_stage,
        "num_layers_in_last_pipeline_stage": recipe.parallel.num_layers_in_last_pipeline_stage,
        "sequence_parallel": recipe.parallel.sequence_parallel,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype is torch.bfloat16,
        "calculate_per_token_loss": True,
        # Needed though a checkpoint overwrites the weights: without it the core's layers do not mark their weights as
        # tensor-parallel, and the norm of the gradient misses those of all ranks but the first.
        "perform_initialization": True,
        "recompute_granularity": recipe.training.recompute_granularity,
    }
    if recipe.training.recompute_granularity == "full":
        options |= {"recompute_method": "uniform", "recompute_num_layers": 1}
    return options
