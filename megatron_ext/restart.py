"""Decide whether a pretraining run that ended early is worth restarting.

A batch script asks this after each end.

    python -m megatron_ext.restart RECIPE.yaml [key=value …] --exit-code 75 && requeue

Ends with 0 when the run should be started again and with 3 when not. A run goes on as long as each
start brings it to a newer checkpoint; with `--in-vain` starts in a row that brought none it is
over, and so it is after a mistake of the user's.
"""

import dataclasses
import json
import sys
from pathlib import Path

from galen import cli, json_file, recipe
from galen.atomic import write_text
from galen.errors import DataError, UsageError
from galen.stop_signals import EXIT_CODE
from megatron_ext.checkpoint import folder as checkpoint_folder
from megatron_ext.config.recipe import Recipe
from megatron_ext.resilience.signals import STOPPED

STATE = "restarts.json"
STOP = 3
_EARLY = {
    EXIT_CODE: "was asked to stop early",
    138: "was ended by SIGUSR1",
    140: "was ended by SIGUSR2",
    143: "was ended by SIGTERM",
}


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to start again, and why."""

    again: bool
    why: str


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.recipe_parser(__doc__ or "", Recipe)
    parser.add_argument(
        "--exit-code", type=int, required=True, metavar="N", help="what the run ended with"
    )
    parser.add_argument(
        "--in-vain",
        type=int,
        default=3,
        metavar="N",
        help="starts in a row without a newer checkpoint that end it [3]",
    )
    arguments = parser.parse_intermixed_args(argv)
    output = Path(recipe.load(Recipe, arguments.recipe, arguments.overrides).output)
    found = decide(output, arguments.exit_code, arguments.in_vain)
    print(f"the run {found.why}", file=sys.stderr)
    return 0 if found.again else STOP


def decide(output: Path, exit_code: int, limit: int) -> Decision:
    """Return whether the run in the folder `output` is worth a restart; record its progress.

    Args:
        output: run folder; it need not exist.
        exit_code: what the last start ended with, 128 + signal when a signal ended it.
        limit: starts in a row that may bring no newer checkpoint.

    Raises:
        DataError: the checkpoint folder is damaged, or what an earlier decision noted.
    """
    if exit_code == 0:
        return Decision(False, "has ended as it should")
    if exit_code == UsageError.exit_code:
        return Decision(False, "was refused (exit code 2): mend the command or the recipe")
    if exit_code == EXIT_CODE and _was_told(output):
        return Decision(
            False, "was stopped by its trigger file: start it again when it should go on"
        )
    state, iteration = output / STATE, checkpoint_folder.latest_iteration(output / "checkpoints")
    before = _in_vain_before(state, iteration)
    in_vain = 0 if before is None else before + 1
    write_text(state, json.dumps({"iteration": iteration, "in_vain": in_vain}) + "\n")
    ended = _EARLY.get(exit_code, f"failed (exit code {exit_code})")
    stands = "has no checkpoint yet" if iteration is None else f"stands at step {iteration}"
    if in_vain >= limit:
        return Decision(
            False, f"{ended} and {stands}, as {limit} starts ago: look at its log first"
        )
    return Decision(
        True,
        f"{ended} and {stands}: starting again"
        + (f" ({in_vain} of {limit} in vain)" if in_vain else ""),
    )


def _in_vain_before(state: Path, iteration: int | None) -> int | None:
    """Return how many starts in a row have ended at this iteration, None for none."""
    if not state.is_file():
        return 0 if iteration is None else None
    before = json_file.read_object(state)
    if not isinstance(before.get("in_vain"), int) or "iteration" not in before:
        raise DataError(f"{state} is damaged: remove it, and the starts in vain are counted anew")
    return before["in_vain"] if before["iteration"] == iteration else None


def _was_told(output: Path) -> bool:
    """Say whether someone asked this run to stop, rather than a limit."""
    stopped = output / STOPPED
    return stopped.is_file() and json_file.read_object(stopped).get("reason") == "trigger file"


if __name__ == "__main__":
    cli.run(main)
