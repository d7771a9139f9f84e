"""Decide whether a pretraining run that ended early is worth restarting.

A batch script asks this after each end.

    galen should-restart RECIPE.yaml [key=value …] --exit-code 75 && requeue

Exit codes: 0 restart the run, 3 do not. A run is restarted as long as each start reaches a newer
checkpoint, up to `--max-restarts-without-progress` consecutive starts that reach none. User errors
(exit code 2) are never restarted.
"""

import dataclasses
import json
import logging
from pathlib import Path

from galen import cli, json_file, recipe
from galen.atomic import write_text
from galen.errors import DataError, UsageError
from galen.stop_signals import EXIT_STOPPED
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.recipe import Recipe
from megatron_ext.observability import phase_clock
from megatron_ext.resilience.signals import STOPPED

STATE = "restarts.json"
STOP = 3
_STOPPED_BY = {
    EXIT_STOPPED: "was asked to stop early",
    138: "was ended by SIGUSR1",
    140: "was ended by SIGUSR2",
    143: "was ended by SIGTERM",
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to restart a run, and why."""

    restart: bool
    reason: str
    """A predicate whose subject is the run: "has finished"."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.recipe_parser(__doc__ or "", Recipe)
    parser.add_argument(
        "--exit-code", type=int, required=True, metavar="N", help="exit code of the run"
    )
    parser.add_argument(
        "--max-restarts-without-progress",
        type=int,
        default=3,
        metavar="N",
        help="give up after so many consecutive starts without a newer checkpoint [3]",
    )
    arguments = parser.parse_intermixed_args(argv)
    output = Path(recipe.load(Recipe, arguments.recipe, arguments.overrides).output)
    phase_clock.record_exit(output, arguments.exit_code)
    decision = decide(output, arguments.exit_code, arguments.max_restarts_without_progress)
    logger.info(f"the run {decision.reason}")
    return 0 if decision.restart else STOP


def decide(output: Path, exit_code: int, limit: int) -> Decision:
    """Decide whether to restart the run in the folder `output`; record its progress.

    Args:
        output: run folder; it need not exist.
        exit_code: of the last start, 128 + signal when a signal ended it.
        limit: consecutive starts that may reach no newer checkpoint.

    Raises:
        DataError: the checkpoint folder or the record of an earlier decision is damaged.
    """
    if exit_code == 0:
        return Decision(False, "has finished")
    if exit_code == UsageError.exit_code:
        return Decision(False, "was refused (exit code 2): correct the command or the recipe")
    if exit_code == EXIT_STOPPED and _stopped_by_trigger_file(output):
        return Decision(False, "was stopped by its trigger file: start it again to resume")
    iteration = checkpoint_folder.latest_iteration(output / "checkpoints")
    count = _count_without_progress(output / STATE, iteration)
    state = {"iteration": iteration, "restarts_without_progress": count}
    write_text(output / STATE, json.dumps(state) + "\n")
    reason = _STOPPED_BY.get(exit_code, f"failed (exit code {exit_code})")
    if iteration is None:
        reason += ", with no checkpoint yet"
    else:
        reason += f", with its last checkpoint at step {iteration}"
    if count >= limit:
        return Decision(False, f"{reason}, as {limit} starts ago: check its log first")
    reason += ": restarting"
    if count:
        reason += f" ({count} of {limit} restarts without progress)"
    return Decision(True, reason)


def _count_without_progress(state: Path, iteration: int | None) -> int:
    """Return how many consecutive starts, the last included, reached no newer checkpoint.

    Args:
        state: record of the last decision.
        iteration: of the newest checkpoint now.
    """
    if not state.is_file():
        return 1 if iteration is None else 0
    before = json_file.read_object(state)
    count = before.get("restarts_without_progress")
    if not isinstance(count, int) or "iteration" not in before:
        raise DataError(f"{state} is damaged: remove it to restart the count")
    return count + 1 if before["iteration"] == iteration else 0


def _stopped_by_trigger_file(output: Path) -> bool:
    """Return whether a person asked this run to stop, rather than a limit."""
    stopped = output / STOPPED
    return stopped.is_file() and json_file.read_object(stopped).get("reason") == "trigger file"


if __name__ == "__main__":
    cli.run(main)
