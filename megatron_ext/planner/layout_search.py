"""Cost of a layout, and the fastest layouts of a run that fit into memory."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Literal

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel, RecomputeModule
from megatron_ext.planner import experts, memory_model, throughput_model
from megatron_ext.planner.gpus import GpuSpec
from megatron_ext.planner.memory_model import StageMemory
from megatron_ext.planner.run_cost import RunCost, run_cost
from megatron_ext.planner.throughput_model import CommVolume, Efficiencies, StepTime

OVERLAP_TOKENS = 4096
"""Tokens of a micro-batch on a rank from which tp_comm_overlap is proposed."""
_EXPERT_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LAYOUT = {  # keys that the overrides of a layout always contain
    "parallel": (
        "tensor_model_parallel_size",
        "sequence_parallel",
        "pipeline_model_parallel_size",
        "virtual_pipeline_model_parallel_size",
        "context_parallel_size",
        "expert_model_parallel_size",
        "expert_tensor_parallel_size",
        "overlap_grad_reduce",
        "overlap_param_gather",
    ),
    "training": ("micro_batch_size", "recompute_granularity"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Memory and throughput of a run under one layout."""

    recipe: Recipe
    stages: list[StageMemory]
    memory: float
    """Bytes on the fullest rank, the reserve included."""
    fits: bool
    step: StepTime
    comm_volume: CommVolume
    tokens_per_second_per_gpu: float
    lower_tokens_per_second_per_gpu: float | None
    """With attention as slow as in published runs of long sequences, and with experts that are not
    balanced; None for shorter sequences and dense models."""
    mfu: float
    """Of the bf16 peak, also in FP8, as is usual."""
    cost: RunCost
    """To the recipe's last step."""
    upper_cost: RunCost | None
    """The same at `lower_tokens_per_second_per_gpu`."""


def estimate(
    architecture: Architecture,
    recipe: Recipe,
    gpus: int,
    gpu: GpuSpec,
    mtbf_hours: float | None = None,
) -> Estimate:
    """Estimate memory, throughput and cost of a run over `gpus` GPUs.

    Args:
        architecture: the model.
        recipe: the run.
        gpus: number of GPUs.
        gpu: their type.
        mtbf_hours: mean time between failures of the run; None for Llama 3's rate.

    Raises:
        UsageError: the layout cannot divide the model and the batch.
    """
    check_layout(recipe, architecture, gpus)
    if recipe.training.fp8_format and gpu.fp8_flops is None:
        raise UsageError(
            "training.fp8_format: this GPU has no FP8 matrix products; plan with"
            " training.fp8_format=null"
        )
    stages = memory_model.all_stages(architecture, recipe, gpus)
    memory = max(stage.total for stage in stages) + memory_model.RESERVE
    step = throughput_model.step_time(architecture, recipe, gpus, gpu)
    length = recipe.data.seq_length
    tokens = recipe.training.global_batch_size * length
    rate = tokens / step.total / gpus
    lower_rate = None
    upper_cost = None
    slow = _slow_efficiencies(recipe)
    if slow != throughput_model.EFFICIENCIES:
        slow_step = throughput_model.step_time(architecture, recipe, gpus, gpu, slow)
        lower_rate = tokens / slow_step.total / gpus
        upper_cost = run_cost(architecture, recipe, gpus, slow_step.total, mtbf_hours)
    return Estimate(
        recipe=recipe,
        stages=stages,
        memory=memory,
        fits=memory <= gpu.memory,
        step=step,
        comm_volume=throughput_model.comm_volume(architecture, recipe, gpus),
        tokens_per_second_per_gpu=rate,
        lower_tokens_per_second_per_gpu=lower_rate,
        mfu=rate * architecture.flops_per_token(length) / gpu.bf16_flops,
        cost=run_cost(architecture, recipe, gpus, step.total, mtbf_hours),
        upper_cost=upper_cost,
    )


def _slow_efficiencies(recipe: Recipe) -> Efficiencies:
    """Return the efficiencies of long sequences and of experts that are not balanced."""
    slow = throughput_model.EFFICIENCIES
    if recipe.data.seq_length > throughput_model.FITTED_LENGTH:
        slow = throughput_model.LONG_EFFICIENCIES
    return dataclasses.replace(slow, imbalance=experts.imbalance(recipe))


def search(
    architecture: Architecture,
    recipe: Recipe,
    gpus: int,
    gpu: GpuSpec,
    mtbf_hours: float | None = None,
) -> list[Estimate]:
    """Return the estimates of all possible layouts, the fastest first.

    They have the recipe's batch, sequence length and precision.
    """
    estimates = []
    for candidate in candidates(architecture, recipe, gpu):
        try:
            estimates.append(estimate(architecture, candidate, gpus, gpu, mtbf_hours))
        except UsageError:
            continue
    return sorted(estimates, key=lambda one: one.step.total)


def best(estimates: list[Estimate], count: int) -> list[Estimate]:
    """Return the first `count` that fit.

    Of those with equal tensor, pipeline, context and expert parallel sizes, only the first counts.
    """
    chosen: dict[tuple[int, ...], Estimate] = {}
    for one in estimates:
        parallel = one.recipe.parallel
        if one.fits:
            sizes = (
                parallel.tensor_model_parallel_size,
                parallel.pipeline_model_parallel_size,
                parallel.context_parallel_size,
                parallel.expert_model_parallel_size,
            )
            chosen.setdefault(sizes, one)
    return list(chosen.values())[:count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sizes:
    """How a candidate divides the model and a step."""

    tensor: int
    pipeline: int
    virtual: int | None
    context: int
    expert: int
    micro_batch_size: int
    recompute: Literal["selective", "full"] | None
    recompute_modules: list[RecomputeModule] | None = None


def candidates(architecture: Architecture, recipe: Recipe, gpu: GpuSpec) -> Iterator[Recipe]:
    """Yield the recipe under every plausible layout: tensor parallelism stays within a node."""
    for sizes in _plausible_sizes(architecture, recipe, gpu):
        try:
            yield _with_sizes(recipe, sizes)
        except ValueError:  # the recipe's own checks refuse it
            continue


def _plausible_sizes(architecture: Architecture, recipe: Recipe, gpu: GpuSpec) -> Iterator[_Sizes]:
    layers = architecture.num_layers
    tensors = [n for n in (1, 2, 4, 8) if n <= gpu.per_node]
    pipelines = [n for n in range(1, min(layers, 32) + 1) if layers % n == 0]
    # dividing short sequences makes matrix products small and slow
    contexts = (1,) if recipe.data.seq_length <= 8192 else (1, 2, 4, 8)
    recomputes: list[tuple[Literal["selective", "full"] | None, list[RecomputeModule] | None]]
    recomputes = [(None, None), ("full", None)]
    expert_sizes = [1]
    if architecture.num_moe_experts is not None:
        recomputes.insert(1, ("selective", ["moe_act"]))
        expert_sizes = [n for n in _EXPERT_SIZES if architecture.num_moe_experts % n == 0]
    for tensor, pipeline, context, expert, micro, recompute in itertools.product(
        tensors, pipelines, contexts, expert_sizes, (1, 2, 4), recomputes
    ):
        chunks = [n for n in range(2, 11) if pipeline > 1 and layers % (pipeline * n) == 0]
        for virtual in (None, *chunks):
            yield _Sizes(
                tensor=tensor,
                pipeline=pipeline,
                virtual=virtual,
                context=context,
                expert=expert,
                micro_batch_size=micro,
                recompute=recompute[0],
                recompute_modules=recompute[1],
            )


def _with_sizes(recipe: Recipe, sizes: _Sizes) -> Recipe:
    """Return the recipe under another layout."""
    # below, the chunks of overlapped products are too small
    tokens = sizes.micro_batch_size * recipe.data.seq_length // sizes.context
    overlap = recipe.parallel.tp_comm_overlap and sizes.tensor > 1 and tokens >= OVERLAP_TOKENS
    parallel = dataclasses.replace(
        with_context(recipe.parallel, sizes.context),
        tensor_model_parallel_size=sizes.tensor,
        pipeline_model_parallel_size=sizes.pipeline,
        virtual_pipeline_model_parallel_size=sizes.virtual,
        expert_model_parallel_size=sizes.expert,
        # narrow experts make slow products; the core wants them divided without EP
        expert_tensor_parallel_size=1 if sizes.expert > 1 else None,
        num_layers_in_first_pipeline_stage=None,
        num_layers_in_last_pipeline_stage=None,
        pipeline_model_parallel_layout=None,
        sequence_parallel=sizes.tensor > 1,
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        tp_comm_overlap=overlap,
    )
    training = dataclasses.replace(
        memory_model.without_recompute(recipe).training,
        micro_batch_size=sizes.micro_batch_size,
        recompute_granularity=sizes.recompute,
        recompute_modules=sizes.recompute_modules,
    )
    return dataclasses.replace(recipe, parallel=parallel, training=training)


def with_context(parallel: Parallel, context: int) -> Parallel:
    """Return a layout with another context parallel size, without keys that need the former."""
    changes: dict[str, Any] = {"context_parallel_size": context}
    if context == 1 or (
        "a2a+p2p" in parallel.communication_types and context != parallel.context_parallel_size
    ):
        changes |= {"cp_comm_type": None, "hierarchical_context_parallel_sizes": None}
    return dataclasses.replace(parallel, **changes)


def _is_unset_expert_size(name: str, value: Any, before: Any) -> bool:
    """Return whether a key is a size of expert parallelism at its default, as in dense models."""
    return name.startswith("expert_") and value == before and value in (None, 1)


def overrides(recipe: Recipe, base: Recipe) -> list[str]:
    """Return command-line overrides for the layout, and others that turn `base` into `recipe`."""
    values: dict[str, Any] = {}
    for section, names in _LAYOUT.items():
        before = dataclasses.asdict(getattr(base, section))
        now = dataclasses.asdict(getattr(recipe, section))
        values |= {
            f"{section}.{name}": value
            for name, value in now.items()
            if (name in names and not _is_unset_expert_size(name, value, before[name]))
            or value != before[name]
        }
    return [f"{key}={_yaml(value)}" for key, value in values.items()]


def _yaml(value: Any) -> str:
    """Return a value as YAML without spaces or quotes."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower()
