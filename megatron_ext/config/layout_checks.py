"""Checks that a recipe's model and batch can be divided among the processes.

Megatron-LM makes them in its argument parser; Megatron Core does not.
"""

import itertools

from galen.errors import UsageError
from megatron_ext.config import pipeline_layout
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.expert_checks import check_experts
from megatron_ext.config.fp8_checks import check_fp8_dimensions
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel
from megatron_ext.config.sink_checks import check_sinks


def check_layout(recipe: Recipe, architecture: Architecture, world_size: int) -> int:
    """Check that the model and the batch can be divided among `world_size` processes.

    Returns the data-parallel size.

    Raises:
        UsageError: they cannot; names the numbers that do not divide, and possible ones.
    """
    parallel = recipe.parallel
    tensor = parallel.tensor_model_parallel_size
    pipeline = parallel.pipeline_model_parallel_size
    context = parallel.context_parallel_size
    _check_tensor_parallel(architecture, tensor, "parallel.tensor_model_parallel_size =")
    _check_sequence(recipe)
    _check_context_parallel(recipe, architecture)
    _check_stages(parallel, architecture.num_layers)
    _check_recompute(recipe, architecture.num_layers)
    _check_bf16_layers(recipe, architecture.num_layers)
    offloaded = recipe.training.cpu_offloading_num_layers
    if offloaded >= architecture.num_layers:
        raise UsageError(
            f"training.cpu_offloading_num_layers = {offloaded} must be less than the"
            f" {architecture.num_layers} layers of the model"
        )
    check_fp8_dimensions(recipe, architecture)
    model = tensor * pipeline * context
    if world_size % model:
        below = world_size // model * model
        possible = f"{below} or {below + model}" if below else str(model)
        raise UsageError(
            f"the number of processes ({world_size}) must be a multiple of tensor x pipeline x"
            f" context parallel size = {tensor} x {pipeline} x {context} = {model}; use"
            f" {possible} (galen pretrain --nproc-per-node, galen plan --gpus), or change"
            f" {_parallel_keys(parallel)}"
        )
    check_experts(recipe, architecture, world_size)
    check_sinks(recipe, architecture)
    _check_profiled_ranks(recipe, world_size)
    replicas = world_size // model
    if parallel.use_sharp and replicas * context == 1:
        raise UsageError(
            "parallel.use_sharp needs data parallelism: all processes divide one model; set it to"
            " false"
        )
    _check_batches(recipe, replicas)
    length = recipe.data.seq_length
    positions = architecture.max_position_embeddings
    if length > positions:
        raise UsageError(
            f"data.seq_length = {length} is longer than the {positions} positions of the model;"
            " shorten it, or set model.rope to train at a longer context"
        )
    architecture.check_seq_length(length)
    return replicas


def _check_profiled_ranks(recipe: Recipe, world_size: int) -> None:
    ranks = [] if recipe.profile is None else recipe.profile.ranks
    for rank in ranks:
        if not 0 <= rank < world_size:
            raise UsageError(
                f"profile.ranks names rank {rank}; the run has ranks 0 to {world_size - 1}"
            )


def _parallel_keys(parallel: Parallel) -> str:
    """Return the keys of the sizes above 1."""
    names = (
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "context_parallel_size",
    )
    return " and ".join(f"parallel.{name}" for name in names if getattr(parallel, name) > 1)


def _check_batches(recipe: Recipe, replicas: int) -> None:
    """Check that all global batch sizes can be divided among the replicas."""
    training = recipe.training
    stages = recipe.parallel.pipeline_model_parallel_size
    for batch in BatchSchedule(training).sizes:
        if batch % (training.micro_batch_size * replicas):
            key = "training.global_batch_size"
            if batch != training.global_batch_size:
                key = "training.rampup_batch_size: the batch size"
            multiple = training.micro_batch_size * replicas
            raise UsageError(
                f"{key} = {batch} must be a multiple of micro_batch_size x data-parallel size ="
                f" {training.micro_batch_size} x {replicas} = {multiple}; change it,"
                " training.micro_batch_size or the number of processes"
            )
        micro_batches = batch // (training.micro_batch_size * replicas)
        if recipe.parallel.virtual_pipeline_model_parallel_size and micro_batches % stages:
            raise UsageError(
                f"an interleaved pipeline needs micro-batches in multiples of its {stages}"
                f" stages; a batch of {batch} gives {micro_batches} to each of {replicas} replicas;"
                " change training.global_batch_size or micro_batch_size, or set"
                " parallel.virtual_pipeline_model_parallel_size to null"
            )


def _check_sequence(recipe: Recipe) -> None:
    """Check that sequence parallelism and context parallelism can divide a sequence."""
    parallel = recipe.parallel
    length = recipe.data.seq_length
    context = parallel.context_parallel_size
    tensor = parallel.tensor_model_parallel_size
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
            f" = {2 * context * sequence}: each process takes two equal chunks"
        )


def _check_context_parallel(recipe: Recipe, architecture: Architecture) -> None:
    """Check that context parallelism and its communication support the model."""
    parallel = recipe.parallel
    if parallel.context_parallel_size == 1:
        return
    _check_yarn(parallel, architecture)
    types = parallel.cp_comm_type
    if isinstance(types, list) and len(types) != architecture.num_layers:
        raise UsageError(
            f"parallel.cp_comm_type lists {len(types)} layers, the model has"
            f" {architecture.num_layers}; list each layer's, or set one for all"
        )
    _check_exchanged_heads(parallel, architecture)
    window = architecture.window_size
    rings = _window_communication(parallel, architecture) & {"p2p", "a2a+p2p"}
    if rings and window is not None and recipe.data.seq_length > window:
        raise UsageError(
            f"the model's sliding window of {window} tokens is incompatible with"
            f" parallel.cp_comm_type: {sorted(rings)[0]} (p2p is the default); use all_gather or"
            " a2a, parallel.context_parallel_size = 1, or data.seq_length of at most the window"
        )


def _window_communication(parallel: Parallel, architecture: Architecture) -> set[str]:
    """Return the communication types of the layers with a sliding window."""
    types = parallel.cp_comm_type
    if not isinstance(types, list):
        return {types or "p2p"}
    windows = architecture.window_attn_skip_freq or (1,) * architecture.num_layers
    return {layer_type for layer_type, window in zip(types, windows, strict=True) if window}


def _check_yarn(parallel: Parallel, architecture: Architecture) -> None:
    """Check that Megatron Core can divide YaRN's original positions, as it does when it starts."""
    yarn = architecture.yarn
    multiple = 2 * parallel.context_parallel_size
    if yarn is not None and yarn.original_max_position_embeddings % multiple:
        raise UsageError(
            f"the original_max_position_embeddings = {yarn.original_max_position_embeddings} of the"
            f" model's YaRN scaling must be a multiple of 2 x parallel.context_parallel_size ="
            f" {multiple}"
        )


def _check_exchanged_heads(parallel: Parallel, architecture: Architecture) -> None:
    """Check that the heads can be divided among the processes that exchange them for tokens."""
    tensor = parallel.tensor_model_parallel_size
    types = parallel.communication_types
    sizes = {}
    if "a2a" in types:
        sizes["a2a"] = parallel.context_parallel_size
    if "a2a+p2p" in types and parallel.hierarchical_context_parallel_sizes is not None:
        sizes["a2a+p2p"] = parallel.hierarchical_context_parallel_sizes[0]
    heads = {
        "attention heads": architecture.num_attention_heads,
        "key/value heads": architecture.num_query_groups,
    }
    for name, exchange in sizes.items():
        for head_type, number in heads.items():
            if number % (tensor * exchange):
                raise UsageError(
                    f"parallel.cp_comm_type: {name} cannot divide the model's {number} {head_type}"
                    f" among tensor-parallel size x exchanging processes = {tensor} x {exchange};"
                    " use p2p or all_gather"
                )


def _check_recompute(recipe: Recipe, model_layers: int) -> None:
    """Check the number of recomputed layers against the layers of each model chunk."""
    training = recipe.training
    number = training.recompute_num_layers or 1
    stages = pipeline_layout.chunk_layers(recipe.parallel, model_layers)
    chunk_layers = list(itertools.chain.from_iterable(stages))
    if training.recompute_method == "block":
        if number > max(chunk_layers):
            raise UsageError(
                f"training.recompute_num_layers = {number} is more than the {max(chunk_layers)}"
                " layers of a pipeline stage"
            )
        return
    for layers in chunk_layers:
        if layers % number:  # megatron-core 0.16 would look for layers behind the last
            raise UsageError(
                f"training.recompute_num_layers = {number}: groups of {number} do not divide the"
                f" {layers} layers of a pipeline stage; possible: {_divisors(layers)}, or"
                " training.recompute_method: block"
            )


def _check_bf16_layers(recipe: Recipe, layers: int) -> None:
    """Check the number of layers kept out of FP8 against the layers of a stage."""
    training = recipe.training
    if not training.first_last_layers_bf16:
        return
    limit = layers // recipe.parallel.pipeline_model_parallel_size
    for name in ("num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16"):
        if getattr(training, name) > limit:
            raise UsageError(
                f"training.{name} = {getattr(training, name)} is more than the {limit} layers of a"
                " pipeline stage"
            )


def check_division(architecture: Architecture, tensor: int, pipeline: int, expert: int = 1) -> None:
    """Check that a model can be divided among `tensor` x `pipeline` x `expert` processes.

    Raises:
        UsageError: it cannot; names the number that does not divide, and possible ones.
    """
    experts = architecture.num_moe_experts
    if experts is None and expert > 1:
        raise UsageError(
            f"expert-parallel size {expert} needs a mixture of experts, the model is dense"
        )
    if experts is not None and experts % expert:
        raise UsageError(
            f"the model's {experts} experts cannot be divided by expert-parallel size {expert};"
            f" possible: {_divisors(experts)}"
        )
    _check_tensor_parallel(architecture, tensor, "tensor-parallel size")
    columns = architecture.moe_ffn_hidden_size or 0  # experts with biases are not divided
    if columns % tensor and not architecture.add_bias_linear:
        raise UsageError(
            f"the {columns} columns of the model's experts cannot be divided by tensor-parallel"
            f" size {tensor}; possible: {_divisors(columns)}"
        )
    layers = architecture.num_layers
    if layers % pipeline:
        raise UsageError(
            f"the model's {layers} layers cannot be divided by pipeline-parallel size {pipeline};"
            f" possible: {_divisors(layers)}"
        )


def _check_tensor_parallel(architecture: Architecture, size: int, name: str) -> None:
    """Check that heads and columns can be divided by the tensor-parallel `size`.

    Args:
        architecture: the model.
        size: number of processes.
        name: of the size in messages.
    """
    dimensions = {
        "attention heads": architecture.num_attention_heads,
        "key/value heads": architecture.num_query_groups,
    }
    if not architecture.is_moe:
        dimensions["columns of the MLP"] = architecture.ffn_hidden_size
    if architecture.moe_shared_expert_intermediate_size is not None:
        columns = architecture.moe_shared_expert_intermediate_size
        dimensions["columns of the shared expert"] = columns
    for dimension, number in dimensions.items():
        if number % size:
            raise UsageError(
                f"the model's {number} {dimension} cannot be divided by {name} {size}; possible:"
                f" {_divisors(number)}"
            )


def _check_stages(parallel: Parallel, layers: int) -> None:
    """Check that the pipeline's stages can divide the layers."""
    if parallel.pipeline_model_parallel_layout is not None:
        _check_pipeline_layout(parallel, layers)
        return
    stages = parallel.pipeline_model_parallel_size
    first = parallel.num_layers_in_first_pipeline_stage
    last = parallel.num_layers_in_last_pipeline_stage
    set_by_recipe = [n for n in (first, last) if n is not None]
    if set_by_recipe and stages == 1:
        raise UsageError(
            "parallel.num_layers_in_first/last_pipeline_stage needs pipeline_model_parallel_size of"
            " at least 2"
        )
    if not set_by_recipe and layers % stages:
        raise UsageError(
            f"the model's {layers} layers cannot be divided by"
            f" parallel.pipeline_model_parallel_size = {stages}; possible: {_divisors(layers)}, or"
            " set parallel.num_layers_in_first_pipeline_stage or num_layers_in_last_pipeline_stage"
        )
    remaining = layers - sum(set_by_recipe)
    other_stages = stages - len(set_by_recipe)
    sizes = list(set_by_recipe)
    if other_stages:
        sizes.append(remaining // other_stages)
        divides = remaining >= other_stages and remaining % other_stages == 0
    else:
        divides = remaining == 0
    if not divides:
        raise UsageError(
            f"with {' and '.join(map(str, set_by_recipe))} of the model's {layers} layers in the"
            f" first or last stage, {remaining} are left for {other_stages} other stages, which is"
            " impossible"
        )
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    for size in sizes:
        if size % chunks:
            raise UsageError(
                f"a pipeline stage's {size} layers cannot be divided by"
                f" parallel.virtual_pipeline_model_parallel_size = {chunks}; possible:"
                f" {_divisors(size)}"
            )


def _check_pipeline_layout(parallel: Parallel, layers: int) -> None:
    """Check that the layout has the model's layers, and each stage at least one."""
    key = "parallel.pipeline_model_parallel_layout"
    numbers = pipeline_layout.stage_layers(parallel, layers)
    if sum(numbers) != layers:
        raise UsageError(
            f"{key} has {sum(numbers)} layers (t), the model {layers}; change it, or set it to null"
        )
    if min(numbers) == 0:
        raise UsageError(
            f"{key}: pipeline stage {numbers.index(0)} (the first is 0) has no layer (t); give each"
            " stage at least one, in any of its model chunks"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, 64) + 1) if number % n == 0)
