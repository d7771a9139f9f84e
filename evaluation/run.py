"""Score models on tasks: perplexity on documents, questions under the published protocols.

    galen evaluate RECIPE.yaml [key=value …]

or with an option for each key of the recipe:

    galen evaluate --model MODEL --tasks medqa,pubmedqa --protocol meditron \\
        --data DATA --output scores/base
    galen evaluate --model MODEL --adapter RUN/adapter --tasks medqa \\
        --protocol meditron_chat --data DATA --output scores/tuned
    galen evaluate --model A B C --tasks mmedbench_french --protocol mmedbench \\
        --data DATA --output scores --processes 8

Each scored sample is appended to OUTPUT/samples/TASK.jsonl at once: after an interruption, the same
command resumes. Results with 95% intervals are in OUTPUT/results.json, the prompts in
OUTPUT/prompts/, and the recipe that reproduces them in OUTPUT/recipe.yaml. Several models have a
folder each below OUTPUT. A Megatron checkpoint is exported to OUTPUT.models once and scored from
there, at several iterations if asked. On Slurm, `srun` with several tasks shares the work between
them.
"""

import argparse
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import options as backend_options
from evaluation.chat_models import options as chat_options
from evaluation.harness import options as harness_options
from evaluation.protocols.registry import PROTOCOLS
from evaluation.reporting import results_table
from evaluation.scoring import (
    evaluator,
    finished_run,
    preparation,
)
from evaluation.scoring.evaluator import Plan
from evaluation.scoring.preparation import Preparation
from evaluation.scoring.recipe import Recipe
from evaluation.tasks import task
from galen import checksums, cli, lock, log, option_origins, recipe, recipe_help, worker
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_PART = "GALEN_EVALUATION_PART"
"""Environment variable with a child's rank and the number of `--processes`: `1/4`."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not _names_recipe(words):
        _print_scores(_options(words))
        return 0
    parsed = cli.recipe_parser(__doc__ or "", Recipe).parse_args(words)
    options = recipe.load(Recipe, parsed.recipe, parsed.overrides)
    with option_origins.name_keys(recipe.origins(Recipe, parsed.recipe, parsed.overrides)):
        _print_scores(options)
    return 0


def _print_scores(options: Recipe) -> None:
    """Score the models and print the results of each one when it is done."""
    for plan, results in _scores(options):
        print(results_table.table(results, _heading(options, plan)))
        logger.info(f"results: {plan.output / finished_run.RESULTS}")


def _heading(options: Recipe, plan: Plan) -> str:
    """Return the name of a model for its table: `--name`, or that of its folder."""
    if options.name or plan.model not in options.model:  # at an endpoint, or an exported checkpoint
        return plan.name
    name = plan.model.resolve().name
    return f"{name} + {plan.adapter}" if plan.adapter else name


def evaluate(options: Recipe) -> list[dict[str, Any]]:
    """Score models on tasks and return the contents of each model's `results.json`.

    Finished models are not scored again, unfinished ones are resumed. Of several processes only
    the first returns results.

    Raises:
        UsageError, DataError: a value, a model or a file is wrong; checked before any work.
    """
    return [results for _, results in _scores(options)]


def _scores(options: Recipe) -> Iterator[tuple[Plan, dict[str, Any]]]:
    """Yield each model's plan and results as soon as it is scored."""
    rank, of = _part(options.processes)
    is_child = _PART in os.environ
    prepared = preparation.prepare(options)
    with contextlib.ExitStack() as locks:
        for output in preparation.outputs(options, prepared.models):
            name = output.name if rank == 0 else f"{output.name}.rank{rank}"
            locks.enter_context(lock.hold(output.with_name(name)))
        plans = preparation.plans(options, prepared, rank, is_child)
        if not is_child:  # else the parent process has done it
            for plan in plans:
                evaluator.claim(plan, rank)
        with _children(options, 1 if is_child else options.processes) as children:
            yield from _results(plans, prepared, (rank, of), children)


def _results(
    plans: list[Plan],
    prepared: Preparation,
    part: tuple[int, int],
    children: Sequence[subprocess.Popen[bytes]],
) -> Iterator[tuple[Plan, dict[str, Any]]]:
    """Score each plan as process `part[0]` of `part[1]`; yield the results, in the first one."""
    for plan in plans:
        results = evaluator.evaluate(
            plan, prepared.samples, prepared.examples, *part, lambda: _check_children(children)
        )
        if results is not None:
            yield plan, results


def _options(argv: list[str]) -> Recipe:
    """Return the recipe that the options of a command line stand for.

    Raises:
        UsageError: an option is unknown, or its value is wrong.
    """
    values = vars(_parser().parse_args(argv))
    values.pop("log_level")
    values["tasks"] = [name.strip() for name in values["tasks"].split(",") if name.strip()]
    return Recipe(**values)


def _names_recipe(argv: Sequence[str]) -> bool:
    """Return whether the first argument, but for `--log-level`, is a recipe and no option."""
    words = list(argv)
    if words[:1] == ["--log-level"]:
        words = words[2:]
    elif words and words[0].startswith("--log-level="):
        words = words[1:]
    return bool(words) and not words[0].startswith("-")


def _parser() -> cli.ArgumentParser:
    built_in = ", ".join(sorted(path.stem for path in task.BUILT_IN.glob("*.yaml")))
    tasks = textwrap.fill(f"built-in tasks: {built_in}", 100, break_on_hyphens=False)
    epilog = f"{tasks}\n\nkeys of RECIPE.yaml:\n{recipe_help.describe(Recipe)}"
    parser = cli.ArgumentParser(__doc__, epilog=epilog)
    _add_model_options(parser)
    _add_task_options(parser)
    chat_options.add_chat_options(parser)
    harness_options.add_options(parser)
    _add_file_options(parser)
    backend_options.add_backend_options(parser)
    backend_options.add_endpoint_options(parser)
    return parser


def _add_model_options(parser: cli.ArgumentParser) -> None:
    """Add the options that select the models."""
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="Hugging Face folders, or Megatron checkpoints",
    )
    parser.add_argument(
        "--iterations",
        metavar="N,N",
        help=(
            "iterations of a Megatron checkpoint, or all (default: the newest, which its"
            " latest_checkpointed_iteration.txt names)"
        ),
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="DIR", help="PEFT adapter on top of the model"
    )


def _add_task_options(parser: cli.ArgumentParser) -> None:
    """Add the options of tasks and protocol."""
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="A,B",
        help=(
            "built-in tasks (below), paths of task files, or lm_eval:NAME, a task, group or tag of"
            " the installed lm-evaluation-harness"
        ),
    )
    parser.add_argument(
        "--protocol",
        default="lm_eval",
        help=f"one of: {', '.join(PROTOCOLS)} (default: lm_eval)",
    )
    parser.add_argument(
        "--fewshot-examples",
        type=Path,
        metavar="FILE",
        help="few-shot examples in Galen's layout, used in order, instead of the task's",
    )
    parser.add_argument(
        "--num-fewshot",
        type=int,
        metavar="K",
        help="few-shot examples before each question (default: the protocol's)",
    )
    parser.add_argument(
        "--fewshot-seeds",
        type=_integers,
        metavar="N,N",
        help="seeds of the few-shot examples, one run each (default: the protocol's)",
    )
    parser.add_argument(
        "--num-samples",
        type=int,
        metavar="N",
        help="answers sampled for a question (default: the protocol's)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="maximum length of a generated answer (default: the protocol's)",
    )
    chat_options.add_sampling_options(parser)


def _add_file_options(parser: cli.ArgumentParser) -> None:
    """Add the options of inputs and outputs."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that contains the tasks' files",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for samples and results; several models have one each below it",
    )
    parser.add_argument(
        "--no-verify", action="store_false", dest="verify_checksums", help=checksums.HELP
    )
    parser.add_argument(
        "--name",
        help=(
            "the model's name in reports (default: the output folder's name); renames a finished"
            " run"
        ),
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="score only N samples of each task, chosen by a hash of their ids",
    )
    parser.add_argument(
        "--permute-options",
        type=int,
        metavar="K",
        help=(
            "score each question with its options in K orders and report the order bias; as many as"
            " options: the cyclic shifts"
        ),
    )
    parser.add_argument(
        "--permute-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the orders of the options (default: 0)",
    )
    parser.add_argument(
        "--contamination",
        type=Path,
        metavar="FILE",
        help='JSONL of {"id", "ratio"}, the fraction of a sample\'s n-grams in the corpus',
    )
    parser.add_argument(
        "--contamination-threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="ratio from which on a sample counts as contaminated (default: 0.5)",
    )


def _integers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, not {text!r}") from None
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(
            f"{text} names a seed twice, which would repeat the same run"
        )
    return numbers


def _part(processes: int) -> tuple[int, int]:
    """Return rank and number of processes, from `--processes`, torchrun or srun."""
    if _PART in os.environ:
        number, _, of_all = os.environ[_PART].partition("/")
        return int(number), int(of_all)
    # not SLURM_NTASKS: the batch script itself has it too, before any task is started
    for rank, of in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if int(os.environ.get(of, "1")) > 1:
            if processes > 1:
                raise UsageError(
                    f"--processes is for one machine; {os.environ[of]} processes were already"
                    " started here"
                )
            return int(os.environ[rank]), int(os.environ[of])
    return 0, processes


@contextlib.contextmanager
def _children(options: Recipe, processes: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start this machine's other processes on the same recipe, each on the GPU of its number.

    Waits for them at the end; terminates them after an error.
    """
    with tempfile.TemporaryDirectory(prefix="galen-evaluation-") as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe.dump(options), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).resolve()), *log.level_option(), str(path)]
        children: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, processes):
                child = subprocess.Popen(
                    command,
                    env={**os.environ, _PART: f"{rank}/{processes}", "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL,
                    preexec_fn=worker.die_with_parent,
                )
                children.append(child)
            yield children
            for child in children:
                child.wait()
        finally:
            for child in children:
                child.terminate()  # no effect on one that has ended


def _check_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    if any(child.poll() for child in children):
        raise DataError(
            "another process of this run has failed, see its message above; start the same"
            " command again to resume"
        )


if __name__ == "__main__":
    cli.run(main)
