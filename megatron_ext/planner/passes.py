"""Passes through the layers of a pipeline stage, recompute included; no torch here."""

from megatron_ext.config.recipe import Recipe


def layer_passes(recipe: Recipe, layers: int) -> float:
    """Return the forward and backward passes through a stage's layers for one micro-batch.

    Full recompute adds a second forward pass, a third of the work.
    """
    return layers + _fully_recomputed_layers(recipe, layers) / 3


def _fully_recomputed_layers(recipe: Recipe, layers: int) -> int:
    """Return how many of a stage's layers are recomputed: in blocks, the first of each chunk."""
    training = recipe.training
    if training.recompute_granularity != "full":
        return 0
    if training.recompute_method != "block":
        return layers
    chunks = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    return min(chunks * (training.recompute_num_layers or 1), layers)
