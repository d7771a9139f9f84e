"""Traffic and time of the experts' tokens between and on the ranks; no torch here."""

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.expert_checks import expert_tensor_parallel_size
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import experts, model_state
from megatron_ext.planner.gpus import GpuSpec
from megatron_ext.planner.passes import layer_passes

FP8_CAST_BYTES = 6
"""For a number cast to FP8: read for the maximum and for the cast, written by rows and columns."""
_DISPATCHES = 4
"""Exchanges of tokens in a layer: to the experts and back, forward and backward."""
_PERMUTE_PASSES = 16
"""Of dispatched tokens: sorted by rank and by expert, and back; 8 forward, 8 backward."""


def dispatch_bytes(architecture: Architecture, recipe: Recipe) -> float:
    """Return the bytes that one rank sends for the experts of a layer, forward and backward.

    alltoall sends a copy of a token to each of its experts; allgather sends it to all ranks and
    scatters the sums. The ranks that divide an expert gather and scatter their tokens as well.
    """
    size = experts.BYTES[recipe.training.precision]
    ranks = experts.exchanging_ranks(recipe)
    routed = experts.routed_tokens(architecture, recipe)
    if recipe.parallel.moe_token_dispatcher_type == "allgather":
        sent = routed / max(architecture.moe_router_topk, 1) * (ranks - 1)
    else:
        expert = recipe.parallel.expert_model_parallel_size
        tensor = expert_tensor_parallel_size(recipe.parallel)
        sent = routed * (expert - 1) / expert + routed * (tensor - 1)
    return _DISPATCHES * size * sent * architecture.hidden_size


def dispatch_seconds(
    architecture: Architecture, recipe: Recipe, gpu: GpuSpec, bandwidth_fraction: float
) -> float:
    """Return the seconds in which a layer's tokens reach their experts and return, both passes.

    Ranks that exchange tokens are neighbors: within a node on NVLink. Beyond, a fraction goes over
    the network, at the same time.

    Args:
        architecture: the model.
        recipe: its layout.
        gpu: GPU type, with its links.
        bandwidth_fraction: of the links' peak.
    """
    ranks = experts.exchanging_ranks(recipe)
    sent = dispatch_bytes(architecture, recipe)
    if ranks <= gpu.per_node:
        return sent / (bandwidth_fraction * gpu.nvlink)
    outside = (ranks - gpu.per_node) / (ranks - 1)
    on_network = outside * sent / (bandwidth_fraction * gpu.network)
    within = (1 - outside) * sent / (bandwidth_fraction * gpu.nvlink)
    return max(on_network, within)


def traffic_bytes(architecture: Architecture, recipe: Recipe, imbalance: float) -> float:
    """Return the bytes that activation, permutations and casts of a layer's experts move.

    Of one micro-batch, forward and backward. Few tokens share an expert's weights: their gradients,
    which each micro-batch reads and writes, are counted, too.
    """
    size = experts.BYTES[recipe.training.precision]
    tokens = imbalance * experts.dispatched_tokens(architecture, recipe)
    product = tokens * experts.expert_columns(architecture, recipe)
    hidden = tokens * architecture.hidden_size
    activation_passes = 3 * architecture.mlp_input_projections + 2
    if "moe_act" in (recipe.training.recompute_modules or []):
        activation_passes += architecture.mlp_input_projections + 1
    traffic = size * (_PERMUTE_PASSES * hidden + activation_passes * product)
    gradients = 2 * model_state.gradient_bytes(recipe)
    traffic += gradients * experts.layer_parameters(architecture, recipe)
    if recipe.training.fp8_format is None:
        return traffic
    inputs = hidden + product
    output_gradients = architecture.mlp_input_projections * product + hidden
    return traffic + FP8_CAST_BYTES * (inputs + output_gradients)


def expert_passes(recipe: Recipe, layers: int) -> float:
    """Return the passes through the experts of a stage's layers, as `layer_passes` does."""
    if "moe" in (recipe.training.recompute_modules or []):
        return layers * 4 / 3
    return layer_passes(recipe, layers)


def dispatches(recipe: Recipe, layers: int) -> float:
    """Return how often a stage's layers dispatch tokens; a forward pass is half of the way."""
    return layers + (expert_passes(recipe, layers) - layers) * 3 / 2
