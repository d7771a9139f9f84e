"""Checks that a recipe's model and batch can be divided among the processes.

Megatron-LM makes them in its argument parser; Megatron Core does not.
"""

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel


def check_layout(recipe: Recipe, architecture: Architecture, world_size: int) -> int:
    """Check that the model and the batch can be spread over `world_size` processes.

    Returns the data-parallel size.

    Raises:
        UsageError: they cannot; says which numbers do not divide and what would.
    """
    parallel, training = recipe.parallel, recipe.training
    tensor, pipeline = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    context = parallel.context_parallel_size
    _check_width(recipe, architecture)
    _check_recompute(
        recipe, architecture.num_layers, _check_stages(parallel, architecture.num_layers)
    )
    model = tensor * pipeline * context
    if world_size % model:
        raise UsageError(
            f"{world_size} processes cannot be divided into models of {tensor} x {pipeline} x"
            f" {context} (tensor x pipeline x context); start a multiple of {model}"
            " (--nproc-per-node), or change parallel"
        )
    data = world_size // model
    for batch in BatchSchedule(training).sizes:
        if batch % (training.micro_batch_size * data):
            which = (
                "training.global_batch_size"
                if batch == training.global_batch_size
                else "training.rampup_batch_size: the batch size"
            )
            raise UsageError(
                f"{which} = {batch} is no multiple of micro_batch_size x data-parallel size ="
                f" {training.micro_batch_size} x {data}"
            )
        micro_batches = batch // (training.micro_batch_size * data)
        if parallel.virtual_pipeline_model_parallel_size and micro_batches % pipeline:
            raise UsageError(
                f"an interleaved pipeline needs micro-batches in multiples of its {pipeline}"
                f" stages; a batch of {batch} gives {micro_batches} to each of {data} replicas;"
                " change training.global_batch_size or micro_batch_size, or set"
                " parallel.virtual_pipeline_model_parallel_size to null"
            )
    length, positions = recipe.data.seq_length, architecture.max_position_embeddings
    if length > positions:
        raise UsageError(
            f"data.seq_length = {length} is longer than the {positions} positions of the model"
        )
    return data


def _check_width(recipe: Recipe, architecture: Architecture) -> None:
    """Check that heads, columns and tokens are divisible among the processes that share a layer."""
    parallel, length = recipe.parallel, recipe.data.seq_length
    tensor, context = parallel.tensor_model_parallel_size, parallel.context_parallel_size
    _check_tensor_parallel(architecture, tensor, "parallel.tensor_model_parallel_size =")
    sequence = tensor if parallel.sequence_parallel else 1
    if length % sequence:
        raise UsageError(
            f"{length} tokens in a sequence (data.seq_length) cannot be divided by"
            f" parallel.tensor_model_parallel_size = {tensor}, as sequence_parallel does; possible:"
            f" {_divisors(length)}"
        )
    if context > 1 and length % (2 * context * sequence):
        factor = " x tensor_model_parallel_size" if sequence > 1 else ""
        raise UsageError(
            f"{length} tokens in a sequence (data.seq_length) cannot be divided by 2 x"
            f" parallel.context_parallel_size{factor}"
            f" = {2 * context * sequence}: each process takes two equal pieces"
        )
    if context > 1 and recipe.data.reset_attention_mask:
        raise UsageError(
            "data.reset_attention_mask does not go with parallel.context_parallel_size above 1 yet;"
            " set one of the two back"
        )
    if context > 1 and architecture.window_size is not None and length > architecture.window_size:
        raise UsageError(
            f"the model's sliding window of {architecture.window_size} tokens does not go with"
            " parallel.context_parallel_size above 1; set it to 1, or data.seq_length to at most"
            " the window"
        )


def _check_recompute(recipe: Recipe, layers: int, stages: list[int]) -> None:
    """Check the recomputed layers and those kept out of FP8 against the layers of each stage."""
    training, pieces = recipe.training, recipe.parallel.virtual_pipeline_model_parallel_size or 1
    number, sizes = training.recompute_num_layers or 1, [stage // pieces for stage in stages]
    block = training.recompute_method == "block"
    if block and number > max(sizes):
        raise UsageError(
            f"training.recompute_num_layers = {number} is more than the {max(sizes)} layers of a"
            " pipeline stage"
        )
    for size in sizes:
        if not block and size % number:  # megatron-core 0.16 would look for layers behind the last
            raise UsageError(
                f"training.recompute_num_layers = {number}: groups of {number} do not divide the"
                f" {size} layers of a pipeline stage; possible: {_divisors(size)}, or"
                " training.recompute_method: block"
            )
    most = layers // recipe.parallel.pipeline_model_parallel_size
    for name in ("num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16"):
        if training.first_last_layers_bf16 and getattr(training, name) > most:
            raise UsageError(
                f"training.{name} = {getattr(training, name)} is more than the {most} layers of a"
                " pipeline stage"
            )


def check_division(architecture: Architecture, tensor: int, pipeline: int) -> None:
    """Check that a model can be divided among `tensor` x `pipeline` processes.

    Raises:
        UsageError: it cannot; says which number does not divide and what would.
    """
    _check_tensor_parallel(architecture, tensor, "tensor-parallel size")
    layers = architecture.num_layers
    if layers % pipeline:
        raise UsageError(
            f"the model's {layers} layers cannot be divided by pipeline-parallel size {pipeline};"
            f" possible: {_divisors(layers)}"
        )


def _check_tensor_parallel(architecture: Architecture, size: int, called: str) -> None:
    """Check that heads and columns are divisible by the tensor-parallel `size`.

    The user knows it as `called`.
    """
    divided = (
        (architecture.num_attention_heads, "attention heads"),
        (architecture.num_query_groups, "key/value heads"),
        (architecture.ffn_hidden_size, "columns of the MLP"),
    )
    for number, what in divided:
        if number % size:
            raise UsageError(
                f"the model's {number} {what} cannot be divided by {called} {size}; possible:"
                f" {_divisors(number)}"
            )


def _check_stages(parallel: Parallel, layers: int) -> list[int]:
    """Check that the pipeline's stages can divide the layers; return their numbers of layers."""
    stages = parallel.pipeline_model_parallel_size
    first = parallel.num_layers_in_first_pipeline_stage
    last = parallel.num_layers_in_last_pipeline_stage
    given = [n for n in (first, last) if n is not None]
    if given and stages == 1:
        raise UsageError(
            "parallel.num_layers_in_first/last_pipeline_stage needs pipeline_model_parallel_size of"
            " at least 2"
        )
    if not given and layers % stages:
        raise UsageError(
            f"the model's {layers} layers cannot be divided by"
            f" parallel.pipeline_model_parallel_size = {stages}; possible: {_divisors(layers)}, or"
            " give num_layers_in_first_pipeline_stage and num_layers_in_last_pipeline_stage"
        )
    pieces = parallel.virtual_pipeline_model_parallel_size or 1
    rest, others = layers - sum(given), stages - len(given)
    if rest < others or (others == 0 and rest) or (others and rest % others):
        raise UsageError(
            f"with {' and '.join(map(str, given))} of the model's {layers} layers in the first or"
            f" last stage, {rest} are left for {others} other stages, which cannot be"
        )
    sizes = [*given, rest // others] if others else given
    for size in sizes:
        if size % pieces:
            raise UsageError(
                f"a pipeline stage's {size} layers cannot be divided by"
                f" parallel.virtual_pipeline_model_parallel_size = {pieces}; possible:"
                f" {_divisors(size)}"
            )
    return sizes


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, 64) + 1) if number % n == 0)
