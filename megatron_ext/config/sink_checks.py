"""Checks that attention kernels support a model's attention sinks (`softmax_type: learnable`).

Transformer Engine's tables are in `get_attention_backend` of its dot_product_attention/utils.py.
"""

from packaging.version import Version

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe

_ENGINE = Version("2.8")
_ENGINE_PACKED = Version("2.13")
"""First versions of Transformer Engine with sinks, and with sinks in packed documents."""
_CUDNN_PACKED = 91800
"""First version of cuDNN with sinks in packed documents, as PyTorch reports it."""


def check_sinks(recipe: Recipe, architecture: Architecture) -> None:
    """Check what no platform supports.

    Raises:
        UsageError: names the key and its possible values.
    """
    if architecture.softmax_type == "vanilla":
        return
    if recipe.training.attention_backend == "flash":
        raise UsageError(
            "training.attention_backend: flash does not support the model's attention sinks; use"
            " auto, fused or local"
        )
    parallel = recipe.parallel
    if parallel.context_parallel_size == 1:
        return
    if rings := (parallel.communication_types or {"p2p"}) & {"p2p", "a2a+p2p"}:
        raise UsageError(
            f"parallel.cp_comm_type: {min(rings)} (p2p is the default) does not support the model's"
            " attention sinks; use a2a, or all_gather with training.attention_backend: local"
        )


def engine_problems(
    recipe: Recipe, architecture: Architecture, engine: Version, cudnn: int
) -> list[str]:
    """Return which settings the kernels of Transformer Engine do not support.

    Args:
        recipe: of the run.
        architecture: of the model.
        engine: version of Transformer Engine.
        cudnn: version of cuDNN, as PyTorch reports it.
    """
    training = recipe.training
    if architecture.softmax_type == "vanilla" or training.attention_backend == "local":
        return []
    remedy = "or training.attention_backend: local"
    if engine < _ENGINE:
        return [f"the model's attention sinks need Transformer Engine {_ENGINE} or later, {remedy}"]
    problems = []
    is_packed = recipe.data.reset_attention_mask
    if is_packed and (engine < _ENGINE_PACKED or cudnn < _CUDNN_PACKED):
        problems.append(
            "data.reset_attention_mask with the model's attention sinks needs Transformer Engine"
            f" {_ENGINE_PACKED} and cuDNN 9.18 or later, {remedy}"
        )
    if training.deterministic_mode and training.attention_backend != "unfused":
        problems.append(
            "training.deterministic_mode with the model's attention sinks needs"
            f" training.attention_backend: unfused, {remedy}"
        )
    parallel = recipe.parallel
    is_gathered = "all_gather" in parallel.communication_types
    if parallel.context_parallel_size > 1 and is_gathered:
        problems.append(
            "parallel.cp_comm_type: all_gather with the model's attention sinks needs"
            " training.attention_backend: local; use a2a otherwise"
        )
    return problems
