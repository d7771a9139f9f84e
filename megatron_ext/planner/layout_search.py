"""Cost of a layout, and the fastest layouts of a run that fit into memory."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Literal

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel
from megatron_ext.planner import memory_model, throughput_model
from megatron_ext.planner.gpus import GpuSpec
from megatron_ext.planner.memory_model import StageMemory
from megatron_ext.planner.run_cost import RunCost, run_cost
from megatron_ext.planner.throughput_model import CommVolume, StepTime

OVERLAP_TOKENS = 4096
"""Tokens of a micro-batch on a rank from which tp_comm_overlap is proposed."""
_LAYOUT = {  # keys that the overrides of a layout always contain
    "parallel": (
        "tensor_model_parallel_size",
        "sequence_parallel",
        "pipeline_model_parallel_size",
        "virtual_pipeline_model_parallel_size",
        "context_parallel_size",
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
    """With attention as slow as in published runs of long sequences; None for shorter ones."""
    mfu: float
    """Of the bf16 peak, also in FP8, as is usual."""
    cost: RunCost
    """To the recipe's last step."""


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
    if length > throughput_model.FITTED_LENGTH:
        slow_step = throughput_model.step_time(
            architecture, recipe, gpus, gpu, throughput_model.LONG_EFFICIENCIES
        )
        lower_rate = tokens / slow_step.total / gpus
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
    )


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

    Of those with equal tensor, pipeline and context parallel sizes, only the first counts.
    """
    chosen: dict[tuple[int, int, int], Estimate] = {}
    for one in estimates:
        parallel = one.recipe.parallel
        if one.fits:
            sizes = (
                parallel.tensor_model_parallel_size,
                parallel.pipeline_model_parallel_size,
                parallel.context_parallel_size,
            )
            chosen.setdefault(sizes, one)
    return list(chosen.values())[:count]


def candidates(architecture: Architecture, recipe: Recipe, gpu: GpuSpec) -> Iterator[Recipe]:
    """Yield the recipe under every plausible layout: tensor parallelism stays within a node."""
    layers = architecture.num_layers
    tensors = [n for n in (1, 2, 4, 8) if n <= gpu.per_node]
    pipelines = [n for n in range(1, min(layers, 32) + 1) if layers % n == 0]
    # dividing short sequences makes matrix products small and slow
    contexts = (1,) if recipe.data.seq_length <= 8192 else (1, 2, 4, 8)
    recomputes: tuple[Literal["full"] | None, ...] = (None, "full")
    training_options = memory_model.without_recompute(recipe).training
    for tensor, pipeline, context, micro, recompute in itertools.product(
        tensors, pipelines, contexts, (1, 2, 4), recomputes
    ):
        chunks = [n for n in range(2, 11) if pipeline > 1 and layers % (pipeline * n) == 0]
        # below, the chunks of overlapped products are too small
        tokens = micro * recipe.data.seq_length // context
        overlap = recipe.parallel.tp_comm_overlap and tensor > 1 and tokens >= OVERLAP_TOKENS
        for virtual in (None, *chunks):
            parallel = dataclasses.replace(
                with_context(recipe.parallel, context),
                tensor_model_parallel_size=tensor,
                pipeline_model_parallel_size=pipeline,
                virtual_pipeline_model_parallel_size=virtual,
                num_layers_in_first_pipeline_stage=None,
                num_layers_in_last_pipeline_stage=None,
                pipeline_model_parallel_layout=None,
                sequence_parallel=tensor > 1,
                overlap_grad_reduce=True,
                overlap_param_gather=True,
                tp_comm_overlap=overlap,
            )
            training = dataclasses.replace(
                training_options, micro_batch_size=micro, recompute_granularity=recompute
            )
            try:
                yield dataclasses.replace(recipe, parallel=parallel, training=training)
            except ValueError:  # the recipe's own checks refuse it
                continue


def with_context(parallel: Parallel, context: int) -> Parallel:
    """Return a layout with another context parallel size, without keys that need the former."""
    changes: dict[str, Any] = {"context_parallel_size": context}
    if context == 1 or (
        "a2a+p2p" in parallel.communication_types and context != parallel.context_parallel_size
    ):
        changes |= {"cp_comm_type": None, "hierarchical_context_parallel_sizes": None}
    return dataclasses.replace(parallel, **changes)


def overrides(recipe: Recipe, base: Recipe) -> list[str]:
    """Return command-line overrides for the layout, and others that turn `base` into `recipe`."""
    values: dict[str, Any] = {}
    for section, names in _LAYOUT.items():
        before = dataclasses.asdict(getattr(base, section))
        now = dataclasses.asdict(getattr(recipe, section))
        values |= {
            f"{section}.{name}": value
            for name, value in now.items()
            if name in names or value != before[name]
        }
    return [
        f"{key}={'null' if value is None else str(value).lower()}" for key, value in values.items()
    ]
