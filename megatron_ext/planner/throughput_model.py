"""Step time and communication volume of a run on a GPU type; no torch here.

Each stage's time for a micro-batch is the sum of its matrix products, attention, memory traffic and
exposed communication; the pipeline adds its bubble (Narayanan et al. 2021, arXiv 2104.04473,
section 2.2), the step the reduction of gradients and the optimizer. Five efficiencies represent the
fractions of their peaks that kernels reach. They were set so that the model approximates NVIDIA's
published H100 figures for Llama 3 in FP8 and Megatron-LM's for bf16;
`benchmarks/planner_fit.py` fits them to all published figures but one and predicts that one, and
docs/planning.md states the errors.
"""

import dataclasses

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory_model
from megatron_ext.planner.gpus import GpuSpec

# Passes over the kept activations in norms, rotary positions, SwiGLU and residuals: written and
# read forward, read and written backward, with as much again for gradients.
PASSES = 6
# per weight and step: read and write weight, two averages, gradient in float32, write bf16
_OPTIMIZER_BYTES = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiencies:
    """Fractions of the hardware's peaks that kernels reach."""

    gemm_bf16: float = 0.58
    """Matrix products, of the bf16 peak."""
    gemm_fp8: float = 0.58
    """Matrix products, of the FP8 peak, casts and scaling included."""
    attention: float = 0.45
    """Fused causal attention forward and backward, of the bf16 peak."""
    bandwidth: float = 0.8
    """Of the peaks of memory, network and NVLink."""
    overlap_fraction: float = 0.75
    """Fraction hidden of communication that the layout overlaps with computation."""


EFFICIENCIES = Efficiencies()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommVolume:
    """Bytes that one rank sends in one step."""

    tensor: float
    context: float
    pipeline: float
    data: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step on the slowest stage."""

    gemm: float
    attention: float
    memory: float
    communication: float
    """Of tensor, context and pipeline parallelism, not hidden by computation."""
    bubble: float
    reduction: float
    """Of gradients, and gathering of weights, not hidden by computation."""
    optimizer: float

    @property
    def total(self) -> float:
        """The step."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StageTime:
    """Seconds of one micro-batch on one stage."""

    gemm: float
    attention: float
    memory: float
    communication: float

    @property
    def total(self) -> float:
        return self.gemm + self.attention + self.memory + self.communication


def step_time(
    architecture: Architecture,
    recipe: Recipe,
    gpus: int,
    gpu: GpuSpec,
    efficiencies: Efficiencies = EFFICIENCIES,
) -> StepTime:
    """Return the seconds of one optimizer step of a global batch."""
    parallel = recipe.parallel
    batches = memory_model.micro_batches(recipe, gpus)
    stages = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    times = [_stage_time(architecture, recipe, gpu, stage, efficiencies) for stage in range(stages)]
    slowest = max(times, key=lambda time: time.total)
    volume = comm_volume(architecture, recipe, gpus)
    pipeline_seconds = _exposed(volume.pipeline, gpu.network, chunks > 1, efficiencies)
    replicas = memory_model.data_parallel_size(recipe, gpus) * parallel.context_parallel_size
    shard = _largest_stage_parameters(architecture, recipe) / replicas
    return StepTime(
        gemm=batches * slowest.gemm,
        attention=batches * slowest.attention,
        memory=batches * slowest.memory,
        communication=batches * slowest.communication + pipeline_seconds,
        bubble=slowest.total * (stages - 1) / chunks,
        reduction=_exposed(
            volume.data,
            _data_parallel_bandwidth(gpus, gpu),
            parallel.overlap_grad_reduce,
            efficiencies,
        ),
        optimizer=shard * _OPTIMIZER_BYTES / (efficiencies.bandwidth * gpu.memory_bandwidth),
    )


def _largest_stage_parameters(architecture: Architecture, recipe: Recipe) -> int:
    stages = range(recipe.parallel.pipeline_model_parallel_size)
    return max(memory_model.stage_parameters(architecture, recipe, stage) for stage in stages)


def _stage_time(
    architecture: Architecture,
    recipe: Recipe,
    gpu: GpuSpec,
    stage: int,
    efficiencies: Efficiencies,
) -> _StageTime:
    """Return a stage's seconds for one micro-batch, forward and backward."""
    parallel = recipe.parallel
    training = recipe.training
    tensor = parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    layers = memory_model.stage_layers(recipe, architecture.num_layers)[stage]
    # recompute adds a second forward pass
    passes = layers + _fully_recomputed_layers(recipe, layers) / 3
    gemm_flops = 6 * architecture.layer_matrix_parameters * tokens / tensor
    attention_flops = architecture.attention_flops_per_token(recipe.data.seq_length) * tokens
    bf16_rate = efficiencies.gemm_bf16 * gpu.bf16_flops
    rate = bf16_rate
    if training.fp8_format and gpu.fp8_flops:
        rate = efficiencies.gemm_fp8 * gpu.fp8_flops
    gemm = passes * gemm_flops / rate
    attention = passes * attention_flops / tensor / (efficiencies.attention * gpu.bf16_flops)
    without_recompute = memory_model.without_recompute(recipe)
    activations = memory_model.layer_activations(architecture, without_recompute)
    traffic = passes * PASSES * sum(activations.values())
    if stage == parallel.pipeline_model_parallel_size - 1:
        rows = architecture.padded_vocab_size(tensor) / tensor
        gemm += 6 * rows * architecture.hidden_size * tokens / bf16_rate
        traffic += 3 * sum(memory_model.logits_bytes(architecture, recipe).values())
    volume = _layer_comm_volume(architecture, recipe)
    tensor_link = gpu.nvlink if tensor <= gpu.per_node else gpu.network
    context_ranks = tensor * parallel.context_parallel_size
    context_link = gpu.nvlink if context_ranks <= gpu.per_node else gpu.network
    communication = passes * _exposed(
        volume.tensor, tensor_link, parallel.tp_comm_overlap, efficiencies
    )
    # ring attention computes while keys and values are sent
    communication += passes * _exposed(volume.context, context_link, True, efficiencies)
    return _StageTime(
        gemm=gemm,
        attention=attention,
        memory=traffic / (efficiencies.bandwidth * gpu.memory_bandwidth),
        communication=communication,
    )


def _fully_recomputed_layers(recipe: Recipe, layers: int) -> int:
    """Return how many of a stage's layers are recomputed: in blocks, the first of each chunk."""
    training = recipe.training
    if training.recompute_granularity != "full":
        return 0
    if training.recompute_method != "block":
        return layers
    chunks = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    return min(chunks * (training.recompute_num_layers or 1), layers)


def _exposed(size: float, link: float, overlapped: bool, efficiencies: Efficiencies) -> float:
    """Return the seconds of a transfer of `size` bytes that computation does not hide."""
    exposed_fraction = 1 - efficiencies.overlap_fraction if overlapped else 1
    return size / (efficiencies.bandwidth * link) * exposed_fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LayerCommVolume:
    """Bytes that one rank sends for one layer and micro-batch, forward and backward."""

    tensor: float
    context: float


def _layer_comm_volume(architecture: Architecture, recipe: Recipe) -> _LayerCommVolume:
    """Return the communication volume of one layer.

    Tensor parallelism with sequence parallelism gathers and scatters the hidden states twice in
    each pass, and gathers twice more for the weights' gradients; without it, it all-reduces them
    twice in each pass, which is as much (Korthikanti et al. 2022, section 4.2.2). Context
    parallelism passes keys and values round, and in the backward pass their gradients too.
    """
    parallel = recipe.parallel
    size = memory_model.BYTES[recipe.training.precision]
    tensor = parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    transfers = 10 if parallel.sequence_parallel else 8
    hidden_states = transfers * size * tokens * architecture.hidden_size
    keys_and_values = 2 * architecture.key_value_size / tensor
    return _LayerCommVolume(
        tensor=hidden_states * (tensor - 1) / tensor,
        context=3 * size * tokens * keys_and_values * (parallel.context_parallel_size - 1),
    )


def comm_volume(architecture: Architecture, recipe: Recipe, gpus: int) -> CommVolume:
    """Return the bytes that one rank of the largest stage sends in one step."""
    parallel = recipe.parallel
    size = memory_model.BYTES[recipe.training.precision]
    stages = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    batches = memory_model.micro_batches(recipe, gpus)
    layers = max(memory_model.stage_layers(recipe, architecture.num_layers))
    layer = _layer_comm_volume(architecture, recipe)
    tokens = memory_model.micro_batch_tokens(recipe) / (
        parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    )
    hidden_states = size * tokens * architecture.hidden_size
    replicas = memory_model.data_parallel_size(recipe, gpus) * parallel.context_parallel_size
    weight = 1 if recipe.training.fp8_param_gather else size
    gradient = memory_model.BYTES[recipe.optimizer.main_grads_dtype]
    parameters = _largest_stage_parameters(architecture, recipe)
    return CommVolume(
        tensor=batches * layers * layer.tensor,
        context=batches * layers * layer.context,
        pipeline=2 * batches * chunks * hidden_states if stages > 1 else 0.0,
        data=parameters * (gradient + weight) * (replicas - 1) / replicas,
    )


def _data_parallel_bandwidth(gpus: int, gpu: GpuSpec) -> float:
    """Return the bandwidth between a rank and its replicas: NVLink if all GPUs are in one node."""
    return gpu.nvlink if gpus <= gpu.per_node else gpu.network
