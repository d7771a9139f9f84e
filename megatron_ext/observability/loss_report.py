"""The loss curve of a run as one HTML file that needs nothing else."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galen import page, svg
from galen.atomic import write_text
from megatron_ext.observability import run_state
from megatron_ext.observability.expert_load import ExpertLoad
from megatron_ext.observability.run_state import RECENT, RunState


def write(state: RunState, path: Path) -> None:
    """Write the page: the run's state; its loss, gradient norm and rate by step."""
    html = page.render(
        Path(__file__).parent / "loss_report.html.j2",
        title=str(state.folder),
        rows={"step": f"{state.step:,} of {state.total:,}", **run_state.figures(state)},
        figures=curves(state) if state.train else {},
    )
    write_text(path, html)


def curves(state: RunState) -> dict[str, str]:
    """Return curves as SVG by title: loss (raw, smoothed, validation), gradient norm, tokens/s.

    Of a mixture of experts also their load.
    """
    with svg.style():
        figures = {
            "Loss": _loss(state),
            "Gradient norm": _line(state, "grad_norm", "gradient norm"),
            "Throughput": _line(state, "tokens_per_second", "tokens/s"),
        }
        if all("expert_load_max" in record for record in state.train):
            figures["Highest expert load"] = _line(state, "expert_load_max", "multiple of the mean")
        if all("load_balancing_loss" in record for record in state.train):
            figures["Load balancing loss"] = _line(
                state, "load_balancing_loss", "without its coefficient"
            )
        if state.expert_load is not None:
            title = f"Load of each expert, step {state.expert_load.step:,}"
            figures[title] = _expert_load(state.expert_load)
        return figures


def _loss(state: RunState) -> str:
    steps = [record["step"] for record in state.train]
    losses = [record["loss"] for record in state.train]
    smooth = [
        statistics.fmean(losses[max(0, end - RECENT) : end]) for end in range(1, len(losses) + 1)
    ]
    figure, axes = _axes(steps)
    axes.plot(steps, losses, color=svg.FIRST, linewidth=0.7, alpha=0.5, label="each step")
    axes.plot(steps, smooth, color=svg.FIRST, linewidth=1.6, label=f"mean of {RECENT} steps")
    if state.validation:
        axes.plot(
            [record["step"] for record in state.validation],
            [record["loss"] for record in state.validation],
            "o--",
            color=svg.SECOND,
            markersize=4,
            label="validation",
        )
    axes.set_ylabel("loss (nats per token)")
    axes.legend()
    return svg.render(figure, "loss")


def _line(state: RunState, key: str, label: str) -> str:
    steps = [record["step"] for record in state.train]
    values = [record[key] for record in state.train]
    figure, axes = _axes(steps)
    axes.plot(steps, values, color=svg.FIRST, linewidth=1.2)
    axes.set_ylabel(label)
    if any(value > 0 and math.isfinite(value) for value in values):
        axes.set_ylim(0, None)
    return svg.render(figure, key)


def _expert_load(expert_load: ExpertLoad) -> str:
    """Return the load of the experts as a map with a row per layer; darker means more tokens."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers = expert_load.load
    highest = max(2.0, max(max(layer) for layer in layers))
    figure = Figure(figsize=(svg.WIDTH, min(1.2 + 0.12 * len(layers), 6.0)))
    axes = figure.subplots()
    colors = LinearSegmentedColormap.from_list("load", ["#ffffff00", "#1f5fa8"])
    image = axes.pcolormesh(layers, cmap=colors, vmin=0.0, vmax=highest, rasterized=True)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("expert")
    axes.set_ylabel("layer")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("multiple of the mean")
    return svg.render(figure, "expert-load")


def _axes(steps: Sequence[int]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(svg.WIDTH, 2.9))
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes
