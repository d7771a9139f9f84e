"""Checks that a recipe fits a mixture of experts, and that experts can be divided among processes.

Megatron-LM makes some of them in its argument parser; Megatron Core asserts others while it builds
the model.
"""

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.moe_section import Moe
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel

_RECOMPUTE_OF_EXPERTS = {"moe", "moe_act", "shared_experts"}


def check_experts(recipe: Recipe, architecture: Architecture, world_size: int) -> None:
    """Check the options for experts against the model and the number of processes.

    Raises:
        UsageError: names the key and the remedy.
    """
    if not architecture.is_moe:
        _check_dense(recipe)
        return
    _check_recompute(recipe, architecture)
    _check_sizes(recipe.parallel, architecture)
    _check_processes(recipe.parallel, world_size)
    parallel = recipe.parallel
    if parallel.tensor_model_parallel_size > 1 and not parallel.sequence_parallel:
        raise UsageError(
            "a mixture of experts under parallel.tensor_model_parallel_size > 1 needs"
            " parallel.sequence_parallel: true, without which each process would route all tokens"
        )
    fp8 = recipe.training.fp8_format is not None and recipe.training.fp8_recipe == "delayed"
    if fp8 and "moe_act" in (recipe.training.recompute_modules or []):
        raise UsageError(
            "training.recompute_modules: moe_act is incompatible with training.fp8_recipe:"
            " delayed; use moe, or tensorwise or blockwise scaling"
        )


def _check_dense(recipe: Recipe) -> None:
    """Refuse the options for experts of a model without experts."""
    parallel = recipe.parallel
    modules = _RECOMPUTE_OF_EXPERTS & set(recipe.training.recompute_modules or [])
    settings = {
        "the section moe": recipe.moe != Moe(),
        "parallel.expert_model_parallel_size": parallel.expert_model_parallel_size > 1,
        "parallel.expert_tensor_parallel_size": parallel.expert_tensor_parallel_size is not None,
        "parallel.moe_token_dispatcher_type": parallel.moe_token_dispatcher_type != "alltoall",
        f"training.recompute_modules: {', '.join(sorted(modules))}": bool(modules),
    }
    for key, is_set in settings.items():
        if is_set:
            raise UsageError(f"{key} needs a mixture of experts, the model is dense; remove it")


def _check_recompute(recipe: Recipe, architecture: Architecture) -> None:
    modules = recipe.training.recompute_modules or []
    if "mlp" in modules:
        raise UsageError(
            "training.recompute_modules: mlp has no effect on a mixture of experts; use moe"
        )
    if "shared_experts" in modules and architecture.moe_shared_expert_intermediate_size is None:
        raise UsageError(
            "training.recompute_modules: the model has no shared_experts; remove the module"
        )
    if {"moe", "moe_act"} <= set(modules) or {"moe", "shared_experts"} <= set(modules):
        raise UsageError(
            "training.recompute_modules: moe includes moe_act and shared_experts; list moe alone"
        )


def expert_tensor_parallel_size(parallel: Parallel) -> int:
    """Return the number of processes that divide an expert."""
    return parallel.expert_tensor_parallel_size or parallel.tensor_model_parallel_size


def _check_sizes(parallel: Parallel, architecture: Architecture) -> None:
    """Check that the experts, and each expert's columns, can be divided."""
    experts = architecture.num_moe_experts or 1
    size = parallel.expert_model_parallel_size
    if experts % size:
        possible = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
        raise UsageError(
            f"the model's {experts} experts cannot be divided by"
            f" parallel.expert_model_parallel_size = {size}; possible: {possible}"
        )
    tensor = parallel.tensor_model_parallel_size
    expert_tensor = expert_tensor_parallel_size(parallel)
    key = "parallel.expert_tensor_parallel_size"
    if expert_tensor not in (1, tensor):
        raise UsageError(
            f"{key} = {expert_tensor} must be 1 or parallel.tensor_model_parallel_size = {tensor}"
        )
    if expert_tensor != tensor and size == 1:
        # Megatron Core reduces the gradients of experts over their own groups only under EP
        raise UsageError(
            f"{key} = 1 under parallel.tensor_model_parallel_size = {tensor} needs"
            " parallel.expert_model_parallel_size of at least 2; set it, or remove the key"
        )
    if expert_tensor > 1 and architecture.add_bias_linear:
        raise UsageError(
            f"Megatron Core cannot divide experts with biases: set {key}: 1 and"
            " parallel.expert_model_parallel_size of at least 2"
        )
    columns = architecture.moe_ffn_hidden_size or 1
    if columns % expert_tensor:
        raise UsageError(
            f"the {columns} columns of an expert cannot be divided by {key} = {expert_tensor}; set"
            " it to 1"
        )


def _check_processes(parallel: Parallel, world_size: int) -> None:
    """Check that expert parallelism divides the processes."""
    expert = parallel.expert_model_parallel_size
    tensor = expert_tensor_parallel_size(parallel)
    pipeline = parallel.pipeline_model_parallel_size
    if world_size % (tensor * expert * pipeline):
        remedy = "parallel.expert_model_parallel_size"
        if tensor > 1 and expert > 1:
            remedy += ", or set parallel.expert_tensor_parallel_size: 1"
        raise UsageError(
            f"the number of processes ({world_size}) must be a multiple of expert tensor x expert x"
            f" pipeline parallel size = {tensor} x {expert} x {pipeline} ="
            f" {tensor * expert * pipeline}; change {remedy} (the tensor-, context- and"
            " data-parallel processes of a stage divide the experts)"
        )
