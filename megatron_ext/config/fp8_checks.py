"""Checks that the GEMMs of a model under a layout have dimensions that FP8 kernels support."""

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.expert_checks import expert_tensor_parallel_size
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel


def check_fp8_dimensions(recipe: Recipe, architecture: Architecture) -> None:
    """Check that each FP8 GEMM of one rank has dimensions that the kernels support.

    Transformer Engine checks the same in the first forward pass (`assert_dim_for_fp8_exec`,
    MXFP8Quantizer); the GEMM of the weights' gradients adds the number of tokens. The output layer
    is never in FP8.

    Raises:
        UsageError: a dimension is no multiple of what the kernels take.
    """
    if recipe.training.fp8_format is None:
        return
    multiple = 32 if recipe.training.fp8_recipe == "mxfp8" else 16
    parallel = recipe.parallel
    tensor = parallel.tensor_model_parallel_size
    tokens = recipe.training.micro_batch_size * recipe.data.seq_length
    tokens //= parallel.context_parallel_size * (tensor if parallel.sequence_parallel else 1)
    qkv_size = architecture.query_size + 2 * architecture.key_value_size
    dimensions = {
        "hidden_size": architecture.hidden_size,
        f"size of all query heads / {tensor}": architecture.query_size // tensor,
        f"size of all query, key and value heads / {tensor}": qkv_size // tensor,
        **_mlp_dimensions(recipe.parallel, architecture),
        "number of tokens in a micro-batch of one rank": tokens,
    }
    for dimension, size in dimensions.items():
        if size % multiple:
            raise UsageError(
                f"training.fp8_format needs multiples of {multiple}: the {dimension} is {size};"
                " change the layout, or set fp8_format to null"
            )


def _mlp_dimensions(parallel: Parallel, architecture: Architecture) -> dict[str, int]:
    """Return the columns of one rank's MLP, expert and shared expert by name."""
    tensor = parallel.tensor_model_parallel_size
    if not architecture.is_moe:
        return {f"ffn_hidden_size / {tensor}": architecture.ffn_hidden_size // tensor}
    expert_tensor = expert_tensor_parallel_size(parallel)
    columns = (architecture.moe_ffn_hidden_size or 0) // expert_tensor
    dimensions = {f"moe_ffn_hidden_size / {expert_tensor}": columns}
    shared = architecture.moe_shared_expert_intermediate_size
    if shared is not None:
        dimensions[f"moe_shared_expert_intermediate_size / {tensor}"] = shared // tensor
    return dimensions
