"""Step time and communication volume of a run on a GPU type; no torch here.

Each stage's time for a micro-batch is the sum of its matrix products, attention, memory traffic,
exposed communication and kernel overhead. The pipeline adds its bubble (Narayanan et al. 2021,
arXiv 2104.04473, section 2.2), the step the reduction of gradients and the optimizer.
`Efficiencies` are the fractions of the hardware's peaks that kernels reach:
`benchmarks/planner_fit.py` fits them to published figures and states the errors for models that
were held out (docs/planning.md).
"""

import dataclasses

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import dispatch, experts, memory_model, model_state
from megatron_ext.planner.dispatch import FP8_CAST_BYTES
from megatron_ext.planner.gpus import GpuSpec
from megatron_ext.planner.passes import layer_passes

_NORM_PASSES = 5
"""Reads and writes of hidden states in a norm: 2 forward, 3 backward."""
_RESIDUAL_PASSES = 6
"""Of a residual addition: 3 forward, 3 backward."""
_ROTARY_PASSES = 4
"""Of queries and keys in rotary positions: 2 forward, 2 backward."""
_SCORE_PASSES = 10
"""Of scores or probabilities in unfused attention: 4 forward, 6 backward."""
_OPTIMIZER_BYTES = 30
"""For a weight and step: read and write weight, two averages, gradient in float32, write bf16."""
_MEMORY_BANDWIDTH = 0.8
"""Fraction of the peak that elementwise kernels reach."""
_LINK_BANDWIDTH = 0.8
"""Fraction of NVLink's and the network's peak that NCCL reaches with large messages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiencies:
    """Speed of kernels, fitted to published figures."""

    gemm_bf16: float = 0.60
    """Matrix products, of the bf16 peak."""
    gemm_fp8: float = 0.52
    """Matrix products, of the FP8 peak."""
    attention: float = 0.52
    """Fused causal attention forward and backward, of the bf16 peak."""
    overlap_fraction: float = 0.81
    """Fraction hidden of communication that the layout overlaps with computation."""
    layer_overhead: float = 390e-6
    """Seconds of a layer, forward and backward, that do not depend on its size."""
    router_overhead: float = 5.2e-3
    """The same of router and dispatcher: many small kernels, and waiting for the expert counts."""
    dispatch_overlap_fraction: float = 0.0
    """Fraction hidden of the tokens' way to their experts; Galen overlaps none."""
    imbalance: float = 1.0
    """Tokens of the experts on the slowest rank, relative to the mean."""


EFFICIENCIES = Efficiencies()
FITTED_LENGTH = 8192
"""Longest sequences of the runs to which they are fitted."""
LONG_EFFICIENCIES = Efficiencies(attention=0.28)
"""Those that describe NeMo 24.03's published runs of 16k to 256k tokens in a sequence, whose
attention kernels were slower; no figures of a later release were found."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommVolume:
    """Bytes that one rank sends in one step."""

    tensor: float
    context: float
    pipeline: float
    data: float
    expert: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step on the slowest stage."""

    gemm: float
    attention: float
    memory: float
    communication: float
    """Of tensor, context and pipeline parallelism, not hidden by computation."""
    dispatch: float
    """Of tokens between experts."""
    overhead: float
    """Of kernels, whatever their size."""
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
    dispatch: float
    overhead: float

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


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
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    stages = [
        _stage_time(architecture, recipe, gpu, stage, efficiencies)
        for stage in range(parallel.pipeline_model_parallel_size)
    ]
    slowest = max(stages, key=lambda stage: stage.total)
    # a micro-batch fills the pipeline once: the slowest stage waits for all others
    others = sum(stage.total for stage in stages) - slowest.total
    volume = comm_volume(architecture, recipe, gpus)
    pipeline_seconds = _exposed(volume.pipeline, gpu.network, chunks > 1, efficiencies)
    shard = max(
        model_state.optimizer_shard(architecture, recipe, gpus, stage)
        for stage in range(parallel.pipeline_model_parallel_size)
    )
    return StepTime(
        gemm=batches * slowest.gemm,
        attention=batches * slowest.attention,
        memory=batches * slowest.memory,
        communication=batches * slowest.communication + pipeline_seconds,
        dispatch=batches * slowest.dispatch,
        overhead=batches * slowest.overhead,
        bubble=others / chunks,
        reduction=_exposed(
            volume.data,
            _data_parallel_bandwidth(gpus, gpu),
            parallel.overlap_grad_reduce,
            efficiencies,
        ),
        optimizer=shard * _OPTIMIZER_BYTES / (_MEMORY_BANDWIDTH * gpu.memory_bandwidth),
    )


def _stage_time(
    architecture: Architecture,
    recipe: Recipe,
    gpu: GpuSpec,
    stage: int,
    efficiencies: Efficiencies,
) -> _StageTime:
    """Return a stage's seconds for one micro-batch, forward and backward."""
    tensor = recipe.parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    layers = model_state.stage_layers(recipe, architecture.num_layers)[stage]
    passes = layer_passes(recipe, layers)
    attention_flops = architecture.attention_flops_per_token(recipe.data.seq_length) * tokens
    attention_rate = efficiencies.attention * gpu.bf16_flops
    gemm = _gemm_seconds(architecture, recipe, gpu, stage, efficiencies)
    traffic = passes * _layer_traffic(architecture, recipe)
    traffic += dispatch.expert_passes(recipe, layers) * dispatch.traffic_bytes(
        architecture, recipe, efficiencies.imbalance
    )
    if stage == recipe.parallel.pipeline_model_parallel_size - 1:
        rows = architecture.padded_vocab_size(tensor) / tensor
        output_flops = 6 * rows * architecture.hidden_size * tokens
        gemm += output_flops / (efficiencies.gemm_bf16 * gpu.bf16_flops)
        traffic += 3 * sum(memory_model.logits_bytes(architecture, recipe).values())
    modules = recipe.training.recompute_modules or []
    attention_passes = passes + ("core_attn" in modules) * layers / 3
    return _StageTime(
        gemm=gemm,
        attention=attention_passes * attention_flops / tensor / attention_rate,
        memory=traffic / (_MEMORY_BANDWIDTH * gpu.memory_bandwidth),
        communication=passes * _layer_communication(architecture, recipe, gpu, efficiencies),
        dispatch=dispatch.dispatches(recipe, layers)
        * dispatch.dispatch_seconds(architecture, recipe, gpu, _LINK_BANDWIDTH)
        * (1 - efficiencies.dispatch_overlap_fraction)
        * efficiencies.imbalance,
        overhead=passes * efficiencies.layer_overhead
        + architecture.is_moe
        * dispatch.expert_passes(recipe, layers)
        * efficiencies.router_overhead,
    )


def _gemm_seconds(
    architecture: Architecture,
    recipe: Recipe,
    gpu: GpuSpec,
    stage: int,
    efficiencies: Efficiencies,
) -> float:
    """Return the seconds of the matrix products of a stage's layers for one micro-batch."""
    tensor = recipe.parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    layers = model_state.stage_layers(recipe, architecture.num_layers)[stage]
    passes = layer_passes(recipe, layers)
    dense = architecture.layer_dense_matrix_parameters
    if "mlp" in (recipe.training.recompute_modules or []):
        mlp = architecture.mlp_num_projections * architecture.ffn_hidden_size
        mlp_weights = mlp * architecture.hidden_size
        passes += layers * mlp_weights / dense / 3
    flops = passes * 6 * dense * tokens / tensor
    computed = efficiencies.imbalance * experts.dispatched_tokens(architecture, recipe)
    columns = experts.expert_columns(architecture, recipe)
    expert_weights = architecture.mlp_num_projections * architecture.hidden_size * columns
    flops += dispatch.expert_passes(recipe, layers) * 6 * expert_weights * computed
    bf16_seconds = flops / (efficiencies.gemm_bf16 * gpu.bf16_flops)
    if gpu.fp8_flops is None:
        return bf16_seconds
    in_bf16 = model_state.bf16_layers(recipe, layers, stage) / layers
    fp8_seconds = flops / (efficiencies.gemm_fp8 * gpu.fp8_flops)
    return in_bf16 * bf16_seconds + (1 - in_bf16) * fp8_seconds


def _layer_traffic(architecture: Architecture, recipe: Recipe) -> float:
    """Return the bytes that norms, residuals, rotary positions, activation and casts move.

    Of one layer and micro-batch, forward and backward.
    """
    parallel = recipe.parallel
    size = model_state.BYTES[recipe.training.precision]
    tensor = parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    # on this rank outside the tensor-parallel products
    sequence_tokens = tokens / (tensor if parallel.sequence_parallel else 1)
    hidden = sequence_tokens * architecture.hidden_size
    width = architecture.ffn_hidden_size
    if architecture.is_moe:
        width = architecture.moe_shared_expert_intermediate_size or 0
    mlp = tokens * width / tensor
    queries_and_keys = tokens * (architecture.query_size + architecture.key_value_size) / tensor
    values = tokens * architecture.key_value_size / tensor
    passes = _NORM_PASSES * architecture.num_norms_per_layer + 2 * _RESIDUAL_PASSES
    # reads of inputs and the output's gradient; writes of the output and the inputs' gradients
    mlp_passes = 3 * architecture.mlp_input_projections + 2
    elements = passes * hidden + _ROTARY_PASSES * queries_and_keys + mlp_passes * mlp
    if recipe.training.attention_backend == "unfused":
        heads = architecture.num_attention_heads / tensor
        elements += _SCORE_PASSES * tokens * heads * recipe.data.seq_length
    if recipe.training.fp8_format is None:
        return size * elements
    # inputs of four products and gradients of their outputs
    inputs = 2 * hidden + tokens * architecture.query_size / tensor + mlp
    gradients = queries_and_keys + values + architecture.mlp_input_projections * mlp + 2 * hidden
    return size * elements + FP8_CAST_BYTES * (inputs + gradients)


def _layer_communication(
    architecture: Architecture, recipe: Recipe, gpu: GpuSpec, efficiencies: Efficiencies
) -> float:
    """Return a layer's exposed seconds of tensor and context parallelism for one micro-batch."""
    parallel = recipe.parallel
    tensor = parallel.tensor_model_parallel_size
    volume = _layer_comm_volume(architecture, recipe)
    tensor_link = gpu.nvlink if tensor <= gpu.per_node else gpu.network
    context_ranks = tensor * parallel.context_parallel_size
    context_link = gpu.nvlink if context_ranks <= gpu.per_node else gpu.network
    seconds = _exposed(volume.tensor, tensor_link, parallel.tp_comm_overlap, efficiencies)
    # ring attention computes while keys and values are sent
    return seconds + _exposed(volume.context, context_link, True, efficiencies)


def _exposed(size: float, link: float, overlapped: bool, efficiencies: Efficiencies) -> float:
    """Return the seconds of a transfer of `size` bytes that computation does not hide."""
    exposed_fraction = 1 - efficiencies.overlap_fraction if overlapped else 1
    return size / (_LINK_BANDWIDTH * link) * exposed_fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LayerCommVolume:
    """Bytes that one rank sends for one layer and micro-batch, forward and backward."""

    tensor: float
    context: float


def _layer_comm_volume(architecture: Architecture, recipe: Recipe) -> _LayerCommVolume:
    """Return the communication volume of one layer.

    Tensor parallelism with sequence parallelism gathers the inputs of products twice in each pass
    and twice more for the weights' gradients, in FP8 if the products are, and scatters their
    outputs twice in each pass; without it, it all-reduces twice in each pass, which is as much as
    gathering and scattering (Korthikanti et al. 2022, section 4.2.2). Context parallelism passes
    keys and values round, and in the backward pass their gradients too.
    """
    parallel = recipe.parallel
    size = model_state.BYTES[recipe.training.precision]
    gathered_size = 1 if recipe.training.fp8_format else size
    tensor = parallel.tensor_model_parallel_size
    tokens = memory_model.micro_batch_tokens(recipe)
    transfers = 6 * gathered_size + 4 * size if parallel.sequence_parallel else 8 * size
    keys_and_values = 2 * architecture.key_value_size / tensor
    return _LayerCommVolume(
        tensor=transfers * tokens * architecture.hidden_size * (tensor - 1) / tensor,
        context=3 * size * tokens * keys_and_values * (parallel.context_parallel_size - 1),
    )


def comm_volume(architecture: Architecture, recipe: Recipe, gpus: int) -> CommVolume:
    """Return the bytes that one rank of the largest stage sends in one step."""
    parallel = recipe.parallel
    size = model_state.BYTES[recipe.training.precision]
    stages = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    batches = memory_model.micro_batches(recipe, gpus)
    layers = max(model_state.stage_layers(recipe, architecture.num_layers))
    layer = _layer_comm_volume(architecture, recipe)
    tokens = memory_model.micro_batch_tokens(recipe) / (
        parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    )
    hidden_states = size * tokens * architecture.hidden_size
    layer_dispatch = dispatch.dispatch_bytes(architecture, recipe)
    return CommVolume(
        tensor=batches * layers * layer.tensor,
        context=batches * layers * layer.context,
        pipeline=2 * batches * chunks * hidden_states if stages > 1 else 0.0,
        data=_data_parallel_bytes(architecture, recipe, gpus),
        expert=batches * dispatch.dispatches(recipe, layers) * layer_dispatch,
    )


def _data_parallel_bytes(architecture: Architecture, recipe: Recipe, gpus: int) -> float:
    """Return the bytes of gradients and weights that one rank of the largest stage sends."""
    weight = model_state.BYTES[recipe.training.precision]
    if recipe.training.fp8_param_gather:
        weight = model_state.BYTES["fp8"]
    sent = weight + model_state.BYTES[recipe.optimizer.gradients_dtype]
    stages = range(recipe.parallel.pipeline_model_parallel_size)
    return sent * max(
        model_state.stage_parameters(architecture, recipe, stage)
        - model_state.optimizer_shard(architecture, recipe, gpus, stage)
        for stage in stages
    )


def _data_parallel_bandwidth(gpus: int, gpu: GpuSpec) -> float:
    """Return the bandwidth between a rank and its replicas: NVLink if all GPUs are in one node."""
    return gpu.nvlink if gpus <= gpu.per_node else gpu.network
