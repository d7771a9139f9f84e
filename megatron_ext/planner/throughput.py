"""How long a step takes on GPUs of a kind, and what is sent where; no torch here.

Each stage's time for a micro-batch is that of its matrix products, its attention, its memory
traffic and what of its communication nothing hides; the pipeline adds its bubble (Narayanan et al.
2021, arXiv 2104.04473, section 2.2), the step the reduction of gradients and the optimizer. Five
shares stand for what kernels reach of their peak. They were set so that the model comes near
NVIDIA's published H100 figures for Llama 3 in FP8 and Megatron-LM's for bf16;
`benchmarks/planner_fit.py` fits them to all published figures but one and predicts that one, and
docs/planning.md states the errors.
"""

import dataclasses

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory as memory_model
from megatron_ext.planner.gpus import GpuKind

# Passes over the kept activations in norms, rotary positions, SwiGLU and residuals: written and
# read forward, read and written backward, with as much again for gradients.
PASSES = 6
# per weight and step: read and write weight, two averages, gradient in float32, write bf16
_OPTIMIZER_BYTES = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shares:
    """What is reached of the hardware's peaks."""

    gemm_bf16: float = 0.58
    """Matrix products, of the bf16 peak."""
    gemm_fp8: float = 0.58
    """The same of the FP8 peak, casts and scaling included."""
    attention: float = 0.45
    """Fused causal attention forward and backward, of the bf16 peak."""
    bandwidth: float = 0.8
    """Of the memory's, the network's and NVLink's."""
    hidden: float = 0.75
    """Of communication that the layout overlaps with computation."""


SHARES = Shares()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volumes:
    """Bytes that one rank sends in one step."""

    tensor: float
    context: float
    pipeline: float
    data: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step, by what takes them on the slowest stage."""

    products: float
    attention: float
    memory: float
    communication: float
    """That nothing hides: tensor, context and pipeline parallelism."""
    bubble: float
    reduction: float
    """Of gradients, and gathering of weights, as far as nothing hides them."""
    optimizer: float

    @property
    def total(self) -> float:
        """The step."""
        return sum(dataclasses.astuple(self))


def step_time(
    architecture: Architecture, recipe: Recipe, gpus: int, kind: GpuKind, shares: Shares = SHARES
) -> StepTime:
    """Return the seconds of one optimizer step of the whole batch."""
    parallel = recipe.parallel
    batches = memory_model.micro_batches(recipe, gpus)
    stages, pieces = (
        parallel.pipeline_model_parallel_size,
        parallel.virtual_pipeline_model_parallel_size or 1,
    )
    parts = max(
        (_stage(architecture, recipe, kind, stage, shares) for stage in range(stages)), key=sum
    )
    products, attention, memory, communication = (batches * part for part in parts)
    sent = volumes(architecture, recipe, gpus)
    communication += _exposed(sent.pipeline, kind.network, pieces > 1, shares)
    parameters = max(
        memory_model.stage_parameters(architecture, recipe, stage) for stage in range(stages)
    )
    replicas = memory_model.data_parallel_size(recipe, gpus) * parallel.context_parallel_size
    return StepTime(
        products=products,
        attention=attention,
        memory=memory,
        communication=communication,
        bubble=sum(parts) * (stages - 1) / pieces,
        reduction=_exposed(
            sent.data, _data_link(recipe, gpus, kind), parallel.overlap_grad_reduce, shares
        ),
        optimizer=parameters
        / replicas
        * _OPTIMIZER_BYTES
        / (shares.bandwidth * kind.memory_bandwidth),
    )


def _stage(
    architecture: Architecture, recipe: Recipe, kind: GpuKind, stage: int, shares: Shares
) -> tuple[float, float, float, float]:
    """Return a stage's seconds for one micro-batch.

    They are those of matrix products, attention, memory traffic and exposed communication.
    """
    shape, parallel, training = architecture, recipe.parallel, recipe.training
    layers = memory_model.stage_layers(recipe, shape.num_layers)[stage]
    tokens = memory_model.micro_batch_tokens(recipe)
    tensor = parallel.tensor_model_parallel_size
    again = 4 / 3 if training.recompute_granularity == "full" else 1.0
    attended = (
        6 * shape.num_attention_heads * shape.kv_channels * recipe.data.seq_length * tokens / tensor
    )
    width = (
        2 * shape.kv_channels * (shape.num_attention_heads + shape.num_query_groups)
        + 3 * shape.ffn_hidden_size
    )
    multiplied = 6 * shape.hidden_size * width * tokens / tensor
    rate = (
        shares.gemm_fp8 * kind.fp8_flops
        if training.fp8_format and kind.fp8_flops
        else shares.gemm_bf16 * kind.bf16_flops
    )
    products = layers * again * multiplied / rate
    attention = layers * again * attended / (shares.attention * kind.bf16_flops)
    whole = memory_model.without_recompute(recipe)
    traffic = layers * again * PASSES * sum(memory_model.layer_activations(shape, whole).values())
    if stage == parallel.pipeline_model_parallel_size - 1:
        rows = shape.padded_vocab_size(tensor) / tensor
        products += 6 * rows * shape.hidden_size * tokens / (shares.gemm_bf16 * kind.bf16_flops)
        traffic += 3 * sum(memory_model.logits_bytes(shape, recipe).values())
    sent = _layer_bytes(architecture, recipe)
    link = kind.nvlink if tensor <= kind.per_node else kind.network
    communication = layers * again * _exposed(sent[0], link, parallel.tp_comm_overlap, shares)
    ring = kind.nvlink if tensor * parallel.context_parallel_size <= kind.per_node else kind.network
    # the ring's steps are computed on while it turns
    communication += layers * again * _exposed(sent[1], ring, True, shares)
    return products, attention, traffic / (shares.bandwidth * kind.memory_bandwidth), communication


def _exposed(size: float, link: float, overlapped: bool, shares: Shares) -> float:
    """Return the seconds of a transfer that nothing hides."""
    return size / (shares.bandwidth * link) * (1 - shares.hidden if overlapped else 1)


def _layer_bytes(architecture: Architecture, recipe: Recipe) -> tuple[float, float]:
    """Return what one rank sends for one layer and micro-batch, forward and backward.

    It is for tensor parallelism and for context parallelism.

    Tensor parallelism with sequence parallelism gathers and scatters the hidden states twice in
    each pass, and gathers twice more for the weights' gradients; without it, it all-reduces them
    twice in each pass, which is as much (Korthikanti et al. 2022, section 4.2.2). Context
    parallelism passes keys and values round, and in the backward pass their gradients too.
    """
    parallel, size = recipe.parallel, memory_model.BYTES[recipe.training.precision]
    tensor, context = parallel.tensor_model_parallel_size, parallel.context_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    passes = 10 if parallel.sequence_parallel else 8
    between = passes * size * tokens * architecture.hidden_size * (tensor - 1) / tensor
    keys = 2 * architecture.num_query_groups * architecture.kv_channels / tensor
    return between, 3 * size * tokens * keys * (context - 1)


def volumes(architecture: Architecture, recipe: Recipe, gpus: int) -> Volumes:
    """Return the bytes that one rank of the largest stage sends in one step."""
    parallel, size = recipe.parallel, memory_model.BYTES[recipe.training.precision]
    stages, pieces = (
        parallel.pipeline_model_parallel_size,
        parallel.virtual_pipeline_model_parallel_size or 1,
    )
    batches = memory_model.micro_batches(recipe, gpus)
    layers = max(memory_model.stage_layers(recipe, architecture.num_layers))
    tensor, context = _layer_bytes(architecture, recipe)
    rows = memory_model.micro_batch_tokens(recipe) / (
        parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    )
    hidden = size * rows * architecture.hidden_size
    parameters = max(
        memory_model.stage_parameters(architecture, recipe, stage) for stage in range(stages)
    )
    replicas = memory_model.data_parallel_size(recipe, gpus) * parallel.context_parallel_size
    weight = 1 if recipe.training.fp8_param_gather else size
    gradient = memory_model.BYTES[recipe.optimizer.main_grads_dtype]
    return Volumes(
        tensor=batches * layers * tensor,
        context=batches * layers * context,
        pipeline=2 * batches * pieces * hidden if stages > 1 else 0.0,
        data=parameters * (gradient + weight) * (replicas - 1) / replicas,
    )


def _data_link(recipe: Recipe, gpus: int, kind: GpuKind) -> float:
    """Return the bandwidth between a rank and its replicas: NVLink if all GPUs are in one node."""
    return kind.nvlink if gpus <= kind.per_node else kind.network
