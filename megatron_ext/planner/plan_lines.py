"""Lines of a plan as text: parameters, throughput, cost, and tables."""

import math

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import experts
from megatron_ext.planner.gpus import GpuSpec
from megatron_ext.planner.layout_search import Estimate
from megatron_ext.planner.throughput_model import FITTED_LENGTH


def parameters_line(architecture: Architecture) -> str:
    """Return the number of parameters, of experts also of active ones."""
    total = f"{short_number(architecture.parameters)} parameters"
    if not architecture.is_moe:
        return total
    return f"{total} ({short_number(architecture.active_parameters)} active)"


def short_number(number: int) -> str:
    """Return a number in trillions, billions or millions."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:,.2f}{unit}"
    return f"{number:,}"


def expert_lines(architecture: Architecture, recipe: Recipe, gpus: int, gpu: GpuSpec) -> list[str]:
    """Return how a layout divides the experts, and what makes them slow; none for a dense model."""
    if not architecture.is_moe:
        return []
    active = architecture.moe_router_topk
    local = experts.num_local_experts(architecture, recipe)
    copies = experts.data_parallel_size(recipe, gpus)
    replicas = "without copies" if copies == 1 else f"copies on {copies} GPUs"
    lines = [
        (
            f"{architecture.num_moe_experts} experts per layer, {active} active per token; {local}"
            f" on each GPU (EP{recipe.parallel.expert_model_parallel_size}), {replicas}"
        )
    ]
    ranks = experts.exchanging_ranks(recipe)
    if ranks > gpu.per_node:
        lines.append(
            f"Tokens reach their experts over the network: EP x ETP = {ranks} is more than the"
            f" {gpu.per_node} GPUs of a node"
        )
    if recipe.training.fp8_format is not None:
        lines.append(
            "Experts in FP8: published runs with alltoall were 36% to 51% slower than planned"
            " (docs/planning.md)"
        )
    return lines


def lower_rate_lines(one: Estimate) -> list[str]:
    """Return the range of the throughput, and what is not known well."""
    if one.lower_tokens_per_second_per_gpu is None or one.upper_cost is None:
        return []
    hours = ""
    if math.isfinite(one.upper_cost.days):
        hours = f": {one.upper_cost.days:,.1f} days and {one.upper_cost.gpu_hours:,.0f} GPU-hours"
    lower = f"{one.lower_tokens_per_second_per_gpu:,.0f}"
    imbalance = experts.imbalance(one.recipe)
    unbalanced = f"{imbalance - 1:.0%} more tokens than the mean on one GPU"
    if one.recipe.data.seq_length <= FITTED_LENGTH:
        return [f"With unbalanced experts ({unbalanced}) expect {lower} tokens/s/GPU{hours}"]
    causes = "the attention kernels"
    if imbalance > 1:
        causes += f" and the balance of the experts (up to {unbalanced})"
    return [
        (
            f"Beyond {FITTED_LENGTH:,} tokens in a sequence expect {lower} to"
            f" {one.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, depending on {causes}"
            f"{hours and f'; at the lower rate{hours}'}"
        )
    ]


def cost_lines(one: Estimate) -> list[str]:
    """Return the time and GPU-hours of the run, with what is not training, and the stall."""
    cost = one.cost
    if math.isinf(cost.days):
        return [
            f"With a failure in {cost.mtbf_hours:.3g} hours the run never ends: failures come"
            f" before the next checkpoint; best save_interval: {cost.save_interval}"
        ]
    return [
        (
            f"{cost.days:,.1f} days and {cost.gpu_hours:,.0f} GPU-hours to the last step; goodput"
            f" {cost.goodput:.1%} (checkpoints {cost.stall_fraction:.1%}, validation"
            f" {cost.validation_fraction:.1%}, failures {cost.failure_fraction:.1%}: one in"
            f" {cost.mtbf_hours:,.0f} hours)"
        ),
        (
            f"A save stops training for {cost.stall_seconds:.1f} s; save_interval:"
            f" {one.recipe.training.save_interval}, best {cost.save_interval}"
        ),
    ]


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return lines of right-aligned columns."""
    all_rows = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    lines = []
    for row in all_rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells))
    return lines
