"""The loss curve of a run as one HTML file that needs nothing else."""

import html
import statistics
from pathlib import Path

from galen import svg
from galen.atomic import write_text
from megatron_ext.observability import run_state
from megatron_ext.observability.run_state import RECENT, RunState

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
svg {{ width: 100%; height: auto }}
th {{ text-align: left; padding-right: 2em; font-weight: 600 }}</style></head>
<body><h1>{title}</h1>
<table>{rows}</table>
{figure}
</body></html>
"""


def write(state: RunState, path: Path) -> None:
    """Write the page: how the run stands, its loss, gradient norm and rate by step."""
    shown = {"step": f"{state.step:,} of {state.total:,}", **run_state.figures(state)}
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n"
        for name, value in shown.items()
    )
    figure = "<p>No step is done yet.</p>"
    if state.train:
        with svg.style():
            figure = curves(state)
    write_text(path, PAGE.format(title=html.escape(str(state.folder)), rows=rows, figure=figure))


def curves(state: RunState) -> str:
    """Return three curves as SVG: loss (raw, smoothed, validation), gradient norm, tokens/s."""
    from matplotlib.figure import Figure

    steps = [record["step"] for record in state.train]
    losses = [record["loss"] for record in state.train]
    smooth = [
        statistics.fmean(losses[max(0, end - RECENT) : end]) for end in range(1, len(losses) + 1)
    ]
    figure = Figure(figsize=(9, 9), layout="constrained")
    loss, norm, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
    loss.plot(steps, losses, linewidth=0.6, alpha=0.5, label="each step")
    loss.plot(steps, smooth, linewidth=1.6, label=f"mean of {RECENT} steps")
    if state.validation:
        loss.plot(
            *zip(*((one["step"], one["loss"]) for one in state.validation), strict=True),
            "o--",
            markersize=4,
            label="validation",
        )
    loss.set_ylabel("loss, nats per token")
    loss.legend()
    norm.plot(steps, [record["grad_norm"] for record in state.train], linewidth=0.8)
    norm.set_ylabel("gradient norm")
    rate.plot(steps, [record["tokens_per_second"] for record in state.train], linewidth=0.8)
    rate.set(ylabel="tokens/s", xlabel="step", ylim=(0, None))
    return svg.render(figure)
