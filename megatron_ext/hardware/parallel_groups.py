"""Sets up Megatron's process groups and the layout's part of the model configuration."""

import dataclasses
import random
from typing import Any

import numpy
import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.transformer.enums import AttnBackend

from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel, Training

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_NOT_OF_THE_MODEL = (
    "overlap_grad_reduce",
    "overlap_param_gather",
    "ddp_bucket_size",
    "tp_comm_overlap_cfg",
    "nccl_communicator_config_path",
    "use_sharp",
)
"""Fields of the layout for the data-parallel wrapper, the optimizer and the communicators."""


def initialize(parallel: Parallel, seed: int, timeout_minutes: float = 10) -> None:
    """Divide the processes into Megatron's groups and seed every generator (collective)."""
    sizes = parallel.hierarchical_context_parallel_sizes
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
        expert_model_parallel_size=parallel.expert_model_parallel_size,
        expert_tensor_parallel_size=parallel.expert_tensor_parallel_size,
        hierarchical_context_parallel_sizes=None if sizes is None else list(sizes),
        nccl_communicator_config_path=parallel.nccl_communicator_config_path,
        use_sharp=parallel.use_sharp,
        # for what is not used here; each links all replicas with each other
        create_gloo_process_groups=False,
        distributed_timeout_minutes=timeout_minutes,  # type: ignore[arg-type]  # a timedelta takes fractions too
    )
    # Stages draw different numbers, replicas of one stage the same, as in Megatron-LM.
    stage_seed = seed + 100 * parallel_state.get_pipeline_model_parallel_rank()
    random.seed(stage_seed)
    numpy.random.seed(stage_seed)
    torch.manual_seed(stage_seed)
    tensor_parallel.model_parallel_cuda_manual_seed(stage_seed)


def parallel_sizes() -> list[int]:
    """Return tensor, pipeline and data parallel sizes; the last includes context parallelism."""
    return [
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(with_context_parallel=True),
    ]


def saved_layout() -> list[int]:
    """Return the layout that a checkpoint names: its random states belong to no other.

    That is `parallel_sizes`, and expert and expert tensor parallel sizes where experts are divided.
    """
    expert = parallel_state.get_expert_model_parallel_world_size()
    if expert == 1:
        return parallel_sizes()
    return [*parallel_sizes(), expert, parallel_state.get_expert_tensor_parallel_world_size()]


def describe_layout() -> str:
    """Return the parallel sizes, such as TP2 PP1 CP1 DP4.

    They are those of tensor, pipeline, context and data parallelism, and of expert and expert
    tensor parallelism where experts are divided.
    """
    sizes = {
        "TP": parallel_state.get_tensor_model_parallel_world_size(),
        "PP": parallel_state.get_pipeline_model_parallel_world_size(),
        "CP": parallel_state.get_context_parallel_world_size(),
        "DP": parallel_state.get_data_parallel_world_size(),
    }
    expert = parallel_state.get_expert_model_parallel_world_size()
    if expert > 1:
        sizes["EP"] = expert
        sizes["ETP"] = parallel_state.get_expert_tensor_parallel_world_size()
    return " ".join(f"{name}{size}" for name, size in sizes.items())


def parallel_ranks() -> list[int]:
    """Return this process's rank in each of `parallel_sizes`."""
    return [
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(with_context_parallel=True),
    ]


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of Megatron's TransformerConfig that a recipe decides."""
    parallel = recipe.parallel
    training = recipe.training
    dtype = _DTYPES[training.precision]
    options: dict[str, Any] = dataclasses.asdict(parallel) | dataclasses.asdict(recipe.moe)
    for name in _NOT_OF_THE_MODEL:
        del options[name]
    options |= {
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype is torch.bfloat16,
        "calculate_per_token_loss": True,
        # Needed though a checkpoint overwrites the weights: without it the core's layers do not
        # mark their weights as tensor-parallel, and the norm of the gradient misses those of all
        # ranks but the first.
        "perform_initialization": True,
        "attention_backend": AttnBackend[training.attention_backend],
        "deterministic_mode": training.deterministic_mode,
        "cross_entropy_loss_fusion": training.cross_entropy_loss_fusion,
        "recompute_granularity": training.recompute_granularity,
    }
    if parallel.virtual_pipeline_model_parallel_size:
        # Without these two an interleaved pipeline of two stages mixes up what it receives, and its
        # gradients are silently wrong.
        options |= {"overlap_p2p_comm": True, "batch_p2p_comm": False}
    options |= _recompute_options(training) | _offload_options(training)
    return options | _fp8_options(training)


def _recompute_options(training: Training) -> dict[str, Any]:
    if training.recompute_granularity == "full":
        return {
            "recompute_method": training.recompute_method or "uniform",
            "recompute_num_layers": training.recompute_num_layers or 1,
        }
    if training.recompute_granularity == "selective":
        return {"recompute_modules": training.recompute_modules}
    return {}


def _offload_options(training: Training) -> dict[str, Any]:
    if training.fine_grained_activation_offloading:
        return {
            "fine_grained_activation_offloading": True,
            "offload_modules": training.offload_modules,
        }
    if training.cpu_offloading_num_layers:
        return {
            "cpu_offloading": True,
            "cpu_offloading_num_layers": training.cpu_offloading_num_layers,
        }
    return {}


def _fp8_options(training: Training) -> dict[str, Any]:
    if training.fp8_format is None:
        return {}
    options: dict[str, Any] = {
        "fp8": training.fp8_format,
        "fp8_recipe": training.fp8_recipe,
        "fp8_param": training.fp8_param_gather,
        "first_last_layers_bf16": training.first_last_layers_bf16,
        "num_layers_at_start_in_bf16": training.num_layers_at_start_in_bf16,
        "num_layers_at_end_in_bf16": training.num_layers_at_end_in_bf16,
    }
    if training.fp8_recipe == "delayed":
        options |= {
            "fp8_amax_history_len": training.fp8_amax_history_len,
            "fp8_amax_compute_algo": training.fp8_amax_compute_algo,
        }
    return options
