"""Watch a pretraining run, or look at one that is finished.

    python -m megatron_ext.monitor RUN_DIR                    # follow (plain lines if no terminal)
    python -m megatron_ext.monitor RUN_DIR --once             # the present state
    python -m megatron_ext.monitor RUN_DIR --html loss.html   # the loss curve as an HTML page

It reads the run's folder only, so it can be started on any machine that sees it, as often as you
like.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from galen import cli
from galen.errors import UsageError
from megatron_ext.observability import run_state
from megatron_ext.observability.run_state import RunState

BARS = "▁▂▃▄▅▆▇█"


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the recipe's output")
    parser.add_argument("--once", action="store_true", help="show how the run stands and end")
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="S", help="seconds between two looks [2]"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the loss curve there and end"
    )
    arguments = parser.parse_args(argv)
    if arguments.every <= 0:
        raise UsageError(f"--every {arguments.every}: more than 0")
    state = run_state.read(arguments.run)
    if arguments.html:
        from megatron_ext.observability import loss_report

        loss_report.write(state, arguments.html)
        print(f"{arguments.html}: {len(state.train):,} steps, {len(state.validation)} validations")
    elif sys.stdout.isatty():
        _live(state, arguments)
    else:
        _lines(state, arguments)
    return 0


def _lines(state: RunState, arguments: argparse.Namespace) -> None:
    """Print a line now, and one for each later check with news, until the run has ended."""
    said = line(state)
    print(said, flush=True)
    while not (arguments.once or state.over):
        time.sleep(arguments.every)
        state = run_state.read(arguments.run)
        if (now := line(state)) != said:
            print(said := now, flush=True)


def _live(state: RunState, arguments: argparse.Namespace) -> None:
    from rich.live import Live

    with Live(view(state), auto_refresh=False) as live:
        while not (arguments.once or state.over):
            time.sleep(arguments.every)
            state = run_state.read(arguments.run)
            live.update(view(state), refresh=True)


def line(state: RunState) -> str:
    """Return how a run stands in one line."""
    return " | ".join(
        [
            f"step {state.step}/{state.total}",
            *(f"{name} {value}" for name, value in run_state.figures(state).items()),
        ]
    )


def view(state: RunState) -> Any:
    """Return the same for a terminal: a bar, a table, and the loss as a curve."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    for name, value in run_state.figures(state).items():
        table.add_row(name, value)
    parts: list[Any] = [
        f"step {state.step:,} of {state.total:,}",
        ProgressBar(total=state.total, completed=state.step),
        table,
    ]
    if len(state.train) > 1:
        parts.append("loss  " + curve([record["loss"] for record in state.train], 60))
    return Panel(Group(*parts), title=str(state.folder), title_align="left")


def curve(values: list[float], width: int) -> str:
    """Return values as a row of bars, each the mean of its part of them."""
    width = min(width, len(values))
    parts = [
        values[len(values) * n // width : len(values) * (n + 1) // width] for n in range(width)
    ]
    means = [sum(part) / len(part) for part in parts]
    finite = [mean for mean in means if abs(mean) < float("inf")] or [0.0]
    low, high = min(finite), max(finite)
    places = [
        (mean - low) / (high - low) if high > low and abs(mean) < float("inf") else 0.0
        for mean in means
    ]
    return "".join(BARS[round(place * (len(BARS) - 1))] for place in places)


if __name__ == "__main__":
    cli.run(main)
