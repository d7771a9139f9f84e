"""How a layout divides the experts of a model, and what their tokens hold and send.

No torch here. Routing is taken to be balanced on average; `IMBALANCE` is the margin for the rank
whose experts get most. A dense model has no experts: all sizes are 0.
"""

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.expert_checks import expert_tensor_parallel_size
from megatron_ext.config.recipe import Recipe

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
"""Of a number of each type."""
IMBALANCE = 1.25
"""Tokens of the fullest rank's experts, relative to the mean.

Assumed: published runs with and without forced balance differ by 8 to 24% of a step (Qwen3-235B
on 256 H100, Megatron-MoE-ModelZoo).
"""
_FLIGHT_COPIES = 3
"""Copies of dispatched tokens while a layer exchanges them, beside those kept for the backward
pass: in the order of sending, as received, and the gradient."""
_ROUTER_BYTES = 16
"""Kept of a token and expert: logits and probabilities of the auxiliary loss in float32, and the
map of tokens to experts in several forms."""


def num_local_experts(architecture: Architecture, recipe: Recipe) -> int:
    """Return the experts of a layer on one rank."""
    return (architecture.num_moe_experts or 0) // recipe.parallel.expert_model_parallel_size


def layer_matrix_parameters(architecture: Architecture, recipe: Recipe) -> int:
    """Return the weights of the matrices of a layer's experts on one rank."""
    tensor = expert_tensor_parallel_size(recipe.parallel)
    return num_local_experts(architecture, recipe) * (architecture.expert_parameters // tensor)


def layer_parameters(architecture: Architecture, recipe: Recipe) -> int:
    """Return the weights of a layer's experts on one rank, biases included."""
    biases = num_local_experts(architecture, recipe) * architecture.expert_bias_parameters
    return layer_matrix_parameters(architecture, recipe) + biases


def data_parallel_size(recipe: Recipe, gpus: int) -> int:
    """Return the ranks that hold copies of the same experts' weights."""
    parallel = recipe.parallel
    tensor = expert_tensor_parallel_size(parallel)
    divided = tensor * parallel.expert_model_parallel_size * parallel.pipeline_model_parallel_size
    return max(gpus // divided, 1)


def imbalance(recipe: Recipe) -> float:
    """Return the tokens of the fullest rank's experts, relative to the mean."""
    if recipe.parallel.expert_model_parallel_size == 1:
        return 1.0
    capacity = recipe.moe.moe_expert_capacity_factor
    return IMBALANCE if capacity is None else min(IMBALANCE, capacity)


def routed_tokens(architecture: Architecture, recipe: Recipe) -> float:
    """Return the tokens that one rank sends to experts in a micro-batch, once for each expert."""
    if not architecture.is_moe:
        return 0.0
    parallel = recipe.parallel
    tokens = recipe.data.seq_length // parallel.context_parallel_size
    tokens *= recipe.training.micro_batch_size
    sequence = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    return tokens / sequence * architecture.moe_router_topk


def dispatched_tokens(architecture: Architecture, recipe: Recipe) -> float:
    """Return the tokens that one rank's experts compute in a micro-batch, on average.

    The ranks that divide an expert compute the tokens of all of them.
    """
    return routed_tokens(architecture, recipe) * expert_tensor_parallel_size(recipe.parallel)


def expert_columns(architecture: Architecture, recipe: Recipe) -> float:
    """Return the columns of an expert's projections on one rank."""
    width = architecture.moe_ffn_hidden_size or 0
    return width / expert_tensor_parallel_size(recipe.parallel)


def layer_activations(
    architecture: Architecture, recipe: Recipe, fused: bool, product_copies: int
) -> dict[str, float]:
    """Return the bytes that a layer's router and experts keep of a micro-batch on one rank.

    Megatron Core multiplies by the router's probabilities before the second projection, so that
    its output is not kept.

    Args:
        architecture: a mixture of experts.
        recipe: its layout, precision and recompute.
        fused: whether activation and probabilities are one kernel.
        product_copies: tensors of the size of an expert's product that its activation keeps.
    """
    training = recipe.training
    size = BYTES[training.precision]
    product_size = 1 if training.fp8_format else size
    tokens = routed_tokens(architecture, recipe) / architecture.moe_router_topk
    dispatched = imbalance(recipe) * dispatched_tokens(architecture, recipe)
    entries = dispatched * expert_columns(architecture, recipe)
    inputs = architecture.mlp_input_projections
    # unfused, also the product before the probabilities
    expert_copies = product_copies - 1 + (not fused)
    columns = architecture.moe_shared_expert_intermediate_size or 0
    shared = inputs * size + product_size + (product_copies - 1) * size
    return {
        "router": tokens * (architecture.num_moe_experts or 0) * _ROUTER_BYTES,
        "dispatched tokens": product_size * dispatched * architecture.hidden_size,
        "expert gate and up": inputs * size * entries,
        "expert product": (product_size + expert_copies * size) * entries,
        # the tensor-parallel ranks gather their tokens and divide the columns
        "shared expert": shared * tokens * columns,
    }


def flight_bytes(architecture: Architecture, recipe: Recipe) -> float:
    """Return the bytes of tokens in flight while one layer exchanges them."""
    size = BYTES[recipe.training.precision]
    dispatched = imbalance(recipe) * dispatched_tokens(architecture, recipe)
    copies = _FLIGHT_COPIES * dispatched
    parallel = recipe.parallel
    if architecture.is_moe and parallel.moe_token_dispatcher_type == "allgather":
        tokens = routed_tokens(architecture, recipe) / architecture.moe_router_topk
        copies += tokens * exchanging_ranks(recipe)
    return size * copies * architecture.hidden_size


def exchanging_ranks(recipe: Recipe) -> int:
    """Return the ranks among which a layer's tokens are exchanged."""
    parallel = recipe.parallel
    return parallel.expert_model_parallel_size * expert_tensor_parallel_size(parallel)
