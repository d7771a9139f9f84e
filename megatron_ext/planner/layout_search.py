"""What a layout costs, and the layouts of a run that are the fastest among those that fit."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Literal

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import memory as memory_model
from megatron_ext.planner import throughput as throughput_model
from megatron_ext.planner.gpus import GpuKind
from megatron_ext.planner.memory import StageMemory
from megatron_ext.planner.throughput import SHARES, Shares, StepTime, Volumes

_LAYOUT = {  # what the words of a layout always tell
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
    """What a run would need and reach under one layout."""

    recipe: Recipe
    stages: list[StageMemory]
    memory: float
    """Bytes on the fullest rank, the reserve included."""
    fits: bool
    step: StepTime
    volumes: Volumes
    tokens_per_second_per_gpu: float
    mfu: float
    """Of the bf16 peak, also in FP8, as is usual."""
    days: float
    """To the recipe's last step."""


def estimate(
    architecture: Architecture, recipe: Recipe, gpus: int, kind: GpuKind, shares: Shares = SHARES
) -> Estimate:
    """Return what a run over `gpus` GPUs would need and reach.

    Raises:
        UsageError: the model and the batch cannot be spread like this.
    """
    check_layout(recipe, architecture, gpus)
    if recipe.training.fp8_format and kind.fp8_flops is None:
        raise UsageError(
            "training.fp8_format: this kind of GPU multiplies no FP8; plan with"
            " training.fp8_format=null"
        )
    stages = memory_model.all_stages(architecture, recipe, gpus)
    memory = max(stage.total for stage in stages) + memory_model.RESERVE
    step = throughput_model.step_time(architecture, recipe, gpus, kind, shares)
    length = recipe.data.seq_length
    rate = recipe.training.global_batch_size * length / step.total / gpus
    return Estimate(
        recipe=recipe,
        stages=stages,
        memory=memory,
        fits=memory <= kind.memory,
        step=step,
        volumes=throughput_model.volumes(architecture, recipe, gpus),
        tokens_per_second_per_gpu=rate,
        mfu=rate * architecture.flops_per_token(length) / kind.bf16_flops,
        days=step.total * recipe.training.train_iters / 86400,
    )


def search(architecture: Architecture, recipe: Recipe, gpus: int, kind: GpuKind) -> list[Estimate]:
    """Return all layouts over which model and batch can be spread, the fastest first.

    The batch, its tokens and the precision are kept.
    """
    found = []
    for candidate in candidates(architecture, recipe, kind):
        try:
            found.append(estimate(architecture, candidate, gpus, kind))
        except UsageError:
            continue
    return sorted(found, key=lambda one: one.step.total)


def best(found: list[Estimate], count: int) -> list[Estimate]:
    """Return the first `count` that fit.

    Of those with equal tensor, pipeline and context parallel sizes, only the first is kept.
    """
    chosen: dict[tuple[int, int, int], Estimate] = {}
    for one in found:
        parallel = one.recipe.parallel
        if one.fits:
            sizes = (
                parallel.tensor_model_parallel_size,
                parallel.pipeline_model_parallel_size,
                parallel.context_parallel_size,
            )
            chosen.setdefault(sizes, one)
    return list(chosen.values())[:count]


def candidates(architecture: Architecture, recipe: Recipe, kind: GpuKind) -> Iterator[Recipe]:
    """Yield the recipe under every layout worth a look: tensor parallelism stays within a node."""
    layers = architecture.num_layers
    tensors = [n for n in (1, 2, 4, 8) if n <= kind.per_node]
    pipelines = [n for n in range(1, min(layers, 32) + 1) if layers % n == 0]
    # cutting short sequences makes small, slow products
    contexts = (1,) if recipe.data.seq_length <= 8192 else (1, 2, 4, 8)
    recomputes: tuple[Literal["full"] | None, ...] = (None, "full")
    plain = memory_model.without_recompute(recipe).training
    for tensor, pipeline, context, micro, recompute in itertools.product(
        tensors, pipelines, contexts, (1, 2, 4), recomputes
    ):
        pieces = [n for n in range(2, 11) if pipeline > 1 and layers % (pipeline * n) == 0]
        for virtual in (None, *pieces):
            parallel = dataclasses.replace(
                recipe.parallel,
                tensor_model_parallel_size=tensor,
                pipeline_model_parallel_size=pipeline,
                virtual_pipeline_model_parallel_size=virtual,
                context_parallel_size=context,
                num_layers_in_first_pipeline_stage=None,
                num_layers_in_last_pipeline_stage=None,
                sequence_parallel=tensor > 1,
                overlap_grad_reduce=True,
                overlap_param_gather=True,
                tp_comm_overlap=tensor > 1 and recipe.parallel.tp_comm_overlap,
            )
            training = dataclasses.replace(
                plain, micro_batch_size=micro, recompute_granularity=recompute
            )
            try:
                yield dataclasses.replace(recipe, parallel=parallel, training=training)
            except ValueError:  # the recipe's own checks refuse it
                continue


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
