"""The parts of a run's wall time as one HTML file, with a bar for each start, or as JSON."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from galen import page, svg
from galen.atomic import write_text
from megatron_ext.observability.goodput import PARTS, STARTUP, Goodput
from megatron_ext.observability.run_state import RunState
from megatron_ext.observability.save_interval import SaveInterval

MAX_STARTS = 24
"""Starts in the figure, the last ones."""


@dataclasses.dataclass(frozen=True)
class _Color:
    """Color of a part in the figure, and the same in the style sheet."""

    svg: str
    css: str
    opacity: float


_COLORS = {
    "idle": _Color(svg.SOFT, "var(--soft)", 0.3),
    "queue": _Color(svg.SOFT, "var(--soft)", 0.7),
    "startup": _Color(svg.SECOND, "var(--second)", 0.45),
    "training": _Color(svg.FIRST, "var(--first)", 1.0),
    "data_wait": _Color(svg.BETTER, "var(--better)", 0.8),
    "validation": _Color(svg.FIRST, "var(--first)", 0.45),
    "checkpoint": _Color(svg.SECOND, "var(--second)", 1.0),
    "lost": _Color(svg.WORSE, "var(--worse)", 1.0),
    "unknown": _Color(svg.FAINT, "var(--line)", 1.0),
}
"""In the order of the bars."""
_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def write(state: RunState, path: Path) -> None:
    """Write the page; of a run that recorded nothing it says so."""
    goodput = state.goodput
    html = page.render(
        Path(__file__).parent / "goodput_report.html.j2",
        filters={"duration": duration, "utc": _utc, "share": _share},
        title=f"Goodput of {state.folder}",
        status=state.status,
        goodput=goodput,
        names=PARTS,
        startup_names=STARTUP,
        colors=_COLORS,
        figure=_figure(goodput) if goodput else "",
        max_starts=MAX_STARTS,
        interval=interval_rows(goodput.save_interval) if goodput and goodput.save_interval else {},
    )
    write_text(path, html)


def write_json(state: RunState, path: Path) -> None:
    """Write all figures as JSON; `goodput` is null for a run that recorded nothing."""
    figures = state.goodput.to_dict() if state.goodput else {"goodput": None}
    content = {"run": str(state.folder), "status": state.status, **figures}
    write_text(path, json.dumps(content, indent=1) + "\n")


def interval_rows(interval: SaveInterval) -> dict[str, str]:
    """Return the displayed figures of a recommended interval by name."""
    bound = "at least " if interval.is_lower_bound else ""
    seconds = duration(interval.recommended * interval.step_seconds)
    mtbf = f"{bound}{duration(interval.mtbf_seconds)}"
    if interval.is_lower_bound:
        mtbf += " (95% bound)"
    return {
        "recommended training.save_interval": f"{bound}{interval.recommended:,} ({seconds})",
        "present training.save_interval": f"{interval.present:,}"
        f" ({duration(interval.present * interval.step_seconds)})",
        "stall per save": duration(interval.stall_seconds),
        "time per step": duration(interval.step_seconds),
        "failures": str(interval.failures),
        "mean time between failures": mtbf,
        "restart": duration(interval.restart_seconds),
        "expected overhead at the present interval": f"{interval.present_overhead:.1%}",
        "expected overhead at the recommended interval": f"{interval.recommended_overhead:.1%}",
    }


def duration(seconds: float) -> str:
    """Return a time with three digits in its largest fitting unit."""
    for name, length in _UNITS:
        if seconds >= 2 * length:
            value = seconds / length
            return f"{value:.3g} {name}" if value < 1000 else f"{value:,.0f} {name}"
    return f"{seconds:.3g} s"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _share(seconds: float, total: float) -> str:
    """Return a part of a total in percent; a small part is never shown as zero."""
    fraction = seconds / total if total else 0.0
    return "< 0.1%" if 0 < fraction < 0.001 else f"{fraction:.1%}"


def _figure(goodput: Goodput) -> Any:
    """Return the parts of each start as stacked bars, the first start on top."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    starts = goodput.starts[-MAX_STARTS:]
    longest = max(start.seconds for start in starts)
    unit, length = next((one for one in _UNITS if longest >= 2 * one[1]), _UNITS[-1])
    with svg.style({"axes.grid.axis": "x"}):
        figure = Figure(figsize=(svg.WIDTH, 0.8 + 0.3 * len(starts)))
        axes = figure.subplots()
        for start in starts:
            left = 0.0
            for part, color in _COLORS.items():
                width = start.parts[part] / length
                if width:
                    axes.barh(start.number, width, left=left, color=color.svg, alpha=color.opacity)
                left += width
        axes.set_ylim(starts[-1].number + 0.6, starts[0].number - 0.6)
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.set_ylabel("start")
        axes.set_xlabel(f"wall time ({unit})")
        return svg.render(figure, "starts")
