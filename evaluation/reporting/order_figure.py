"""Figure of the order bias: answers by the position at which the option is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.reporting import report_figures
from galen import svg

_MARKERS = "os^Dv"


def positions(task: str, by_model: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Return by position, in percent with 95 % intervals: how often chosen, and the accuracy there.

    The dashed line of the first is how often the right option is there.
    """
    if not any(entry["by_position"] for entry in by_model.values()):
        return Markup("")  # all questions have several right options
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.8 + 0.1 * len(by_model)))
        chosen, accuracy = figure.subplots(1, 2, sharex=True)
        longest: Sequence[Mapping[str, Any]] = max(
            (entry["by_position"] for entry in by_model.values()), key=len
        )
        numbers = [entry["position"] for entry in longest]
        expected = [100 * entry["expected"] for entry in longest]
        chosen.plot(numbers, expected, color=svg.INK, linewidth=1, linestyle=(0, (3, 3)))
        for index, (model, entry) in enumerate(by_model.items()):
            offset = 0.08 * (index - (len(by_model) - 1) / 2)
            _line(chosen, entry["by_position"], "chosen", index, offset, model)
            _line(accuracy, entry["by_position"], "accuracy", index, offset, model)
        chosen.set(xlabel="position", ylabel="chosen, %", xticks=numbers)
        accuracy.set(xlabel="position of the right option", ylabel="right, %")
        for axes in (chosen, accuracy):
            axes.set_ylim(0, None)
        handles, labels = accuracy.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
        return svg.render(figure, f"order-{task}")


def _line(
    axes: Axes,
    by_position: Sequence[Mapping[str, Any]],
    key: str,
    index: int,
    offset: float,
    model: str,
) -> None:
    """Draw a model's values by position; positions without a value are left out."""
    shown = [entry for entry in by_position if entry[key] is not None]
    values = [100 * entry[key]["value"] for entry in shown]
    below = [max(100 * (entry[key]["value"] - entry[key]["low"]), 0) for entry in shown]
    above = [max(100 * (entry[key]["high"] - entry[key]["value"]), 0) for entry in shown]
    axes.errorbar(
        [entry["position"] + offset for entry in shown],
        values,
        yerr=[below, above],
        color=svg.SECOND if index == 0 else svg.FIRST,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5,
        linewidth=1.2,
        label=report_figures.short(model),
    )
