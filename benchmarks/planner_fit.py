"""Fit the planner's speed model to published runs, and its errors for the runs held out.

    python benchmarks/planner_fit.py

Which runs are held out was decided by model before the first fit. Five constants (`Efficiencies` of
the throughput model) are fitted to the others by least squares of the relative errors, with priors
around values known from kernels alone: half to 60% of the peak for matrix products and attention,
80% of overlapped communication hidden, and for a layer about 100 kernels with 3 µs of launch, ramp
and tail each. One more, `router_overhead`, is fitted to mixtures of experts, without a prior, the
others fixed. `EFFICIENCIES` are the results, rounded.

The runs, with their sources and layouts: `benchmarks/published_runs.py` and
`benchmarks/published_expert_runs.py`.
"""

import dataclasses
import math
from typing import Any

from benchmarks.published_expert_runs import EXPERT_RUNS, OTHER_DISPATCHERS, SLOW_EXPERT_RUNS
from benchmarks.published_runs import LONG_SEQUENCES, OTHER_ENGINES, RUNS, PublishedRun
from galen import cli
from megatron_ext.planner.throughput_model import EFFICIENCIES, LONG_EFFICIENCIES, Efficiencies


def groups() -> dict[str, list[PublishedRun]]:
    """Return the runs by their use."""
    return {
        "fitted": [run for run in RUNS if not run.held_out],
        "held out": [run for run in RUNS if run.held_out],
        "other engines": OTHER_ENGINES,
        "long sequences": LONG_SEQUENCES,
        "experts, fitted": [run for run in EXPERT_RUNS if not run.held_out],
        "experts, held out": [run for run in EXPERT_RUNS if run.held_out],
        "experts, alltoall in FP8": SLOW_EXPERT_RUNS,
        "experts, other dispatchers": OTHER_DISPATCHERS,
    }


PRIOR = {
    "gemm_bf16": 0.6,
    "gemm_fp8": 0.6,
    "attention": 0.5,
    "overlap_fraction": 0.8,
    "layer_overhead": 300e-6,
}
WIDTHS = {
    "gemm_bf16": 0.1,
    "gemm_fp8": 0.1,
    "attention": 0.1,
    "overlap_fraction": 0.1,
    "layer_overhead": 100e-6,
}
ERROR = 0.03
"""Relative, of a published figure: releases of one program differ by as much and more."""


def fit(runs: list[PublishedRun]) -> Efficiencies:
    """Return the efficiencies closest to the published figures and to PRIOR."""
    import numpy
    from scipy.optimize import least_squares

    prior = numpy.array(list(PRIOR.values()))
    widths = numpy.array(list(WIDTHS.values()))

    def efficiencies(deviations: Any) -> Efficiencies:
        values = map(float, prior + widths * deviations)
        return Efficiencies(**dict(zip(PRIOR, values, strict=True)))

    def residuals(deviations: Any) -> Any:
        values = efficiencies(deviations)
        return [*(math.log1p(run.error(values)) / ERROR for run in runs), *deviations]

    return efficiencies(least_squares(residuals, 0 * prior).x)


def fit_router(runs: list[PublishedRun]) -> float:
    """Return the seconds of `router_overhead` closest to the published figures."""
    from scipy.optimize import minimize_scalar

    def squares(milliseconds: float) -> float:
        values = dataclasses.replace(EFFICIENCIES, router_overhead=milliseconds / 1000)
        return sum(math.log1p(run.error(values)) ** 2 for run in runs)

    return float(minimize_scalar(squares, bounds=(0, 20), method="bounded").x) / 1000


def table(runs: list[PublishedRun], efficiencies: Efficiencies) -> list[str]:
    """Return the runs with their errors as a Markdown table."""
    lines = [
        "| source | model | precision | GPUs | layout | length | published | planned | error |",
        "|---" * 9 + "|",
    ]
    for run in runs:
        lines.append(
            f"| {run.source} | {run.model} | {run.precision} | {run.gpus:,} | {run.layout} |"
            f" {run.length:,} | {run.tokens:,.0f} | {run.planned(efficiencies):,.0f} |"
            f" {run.error(efficiencies):+.1%} |"
        )
    return lines


def root_mean_square(runs: list[PublishedRun], efficiencies: Efficiencies) -> float:
    """Return the root mean square of the relative errors."""
    return math.sqrt(sum(run.error(efficiencies) ** 2 for run in runs) / len(runs))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    cli.ArgumentParser(__doc__).parse_args(argv)
    runs_by_use = groups()
    fitted = fit(runs_by_use["fitted"])
    fitted = dataclasses.replace(fitted, router_overhead=fit_router(runs_by_use["experts, fitted"]))
    print(f"fitted: {fitted}\nused:   {EFFICIENCIES}")
    for name, runs in runs_by_use.items():
        error = root_mean_square(runs, EFFICIENCIES)
        print(f"\n{name}: {len(runs)} runs, root mean square of the errors {error:.1%}\n")
        print("\n".join(table(runs, EFFICIENCIES)))
    error = root_mean_square(LONG_SEQUENCES, LONG_EFFICIENCIES)
    print(f"\nlong sequences with slower attention: {error:.1%}")


if __name__ == "__main__":
    cli.run(main)
