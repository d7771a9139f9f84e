"""Watch a pretraining run, or inspect a finished one.

    galen monitor RUN_DIR                    # follow (plain lines if no terminal)
    galen monitor RUN_DIR --once             # the current state
    galen monitor RUN_DIR --html loss.html   # the loss curve as an HTML page
    galen monitor RUN_DIR --goodput-html goodput.html   # where the wall time went

It only reads the run folder: start it on any machine that can access the folder, at any time.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from galen import cli
from galen.errors import UsageError
from megatron_ext.observability import goodput, run_state
from megatron_ext.observability.run_state import RunState

BARS = "▁▂▃▄▅▆▇█"


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the recipe's output")
    parser.add_argument("--once", action="store_true", help="print the current state and exit")
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="S", help="seconds between updates [2]"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the loss curve to FILE and exit"
    )
    parser.add_argument(
        "--goodput-html",
        type=Path,
        metavar="FILE",
        help="write the parts of the wall time of all starts to FILE as a page and exit",
    )
    parser.add_argument(
        "--goodput-json", type=Path, metavar="FILE", help="write them to FILE as JSON and exit"
    )
    arguments = parser.parse_args(argv)
    if arguments.every <= 0:
        raise UsageError(f"--every {arguments.every}: must be positive")
    state = run_state.read(arguments.run)
    if arguments.html or arguments.goodput_html or arguments.goodput_json:
        _write_reports(state, arguments)
    elif sys.stdout.isatty():
        _live(state, arguments)
    else:
        _lines(state, arguments)
    return 0


def _write_reports(state: RunState, arguments: argparse.Namespace) -> None:
    """Write the files that the options ask for."""
    from megatron_ext.observability import goodput_report, loss_report

    if arguments.html:
        loss_report.write(state, arguments.html)
        print(f"{arguments.html}: {len(state.train):,} steps, {len(state.validation)} validations")
    if arguments.goodput_html:
        goodput_report.write(state, arguments.goodput_html)
        print(f"{arguments.goodput_html}: goodput {goodput.summary(state.goodput)}")
    if arguments.goodput_json:
        goodput_report.write_json(state, arguments.goodput_json)
        print(f"{arguments.goodput_json}: goodput {goodput.summary(state.goodput)}")


def _lines(state: RunState, arguments: argparse.Namespace) -> None:
    """Print a line now, and one after each change, until the run has ended."""
    printed = line(state)
    print(printed, flush=True)
    while not (arguments.once or state.ended):
        time.sleep(arguments.every)
        state = run_state.read(arguments.run)
        current = line(state)
        if current != printed:
            print(current, flush=True)
            printed = current


def _live(state: RunState, arguments: argparse.Namespace) -> None:
    from rich.live import Live

    with Live(view(state), auto_refresh=False) as live:
        while not (arguments.once or state.ended):
            time.sleep(arguments.every)
            state = run_state.read(arguments.run)
            live.update(view(state), refresh=True)


def line(state: RunState) -> str:
    """Return the state of a run in one line."""
    values = [f"{name} {value}" for name, value in run_state.figures(state).items()]
    return " | ".join([f"step {state.step}/{state.total}", *values])


def view(state: RunState) -> Any:
    """Return the state of a run for a terminal: progress bar, table and loss curve."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    for name, value in run_state.figures(state).items():
        table.add_row(name, value)
    rows: list[Any] = [
        f"step {state.step:,} of {state.total:,}",
        ProgressBar(total=state.total, completed=state.step),
        table,
    ]
    if len(state.train) > 1:
        rows.append("loss  " + curve([record["loss"] for record in state.train], 60))
    return Panel(Group(*rows), title=str(state.folder), title_align="left")


def curve(values: list[float], width: int) -> str:
    """Return values as a row of at most `width` bars, each the mean of adjacent values."""
    width = min(width, len(values))
    means = []
    for column in range(width):
        start = len(values) * column // width
        end = len(values) * (column + 1) // width
        means.append(sum(values[start:end]) / (end - start))
    finite = [mean for mean in means if abs(mean) < float("inf")] or [0.0]
    low = min(finite)
    high = max(finite)
    bars = ""
    for mean in means:
        height = 0.0
        if high > low and abs(mean) < float("inf"):
            height = (mean - low) / (high - low)
        bars += BARS[round(height * (len(BARS) - 1))]
    return bars


if __name__ == "__main__":
    cli.run(main)
