"""Compare models by their answers to the same conversations, pair by pair, with a judge.

    galen judge-pairs scores/base scores/tuned --task healthbench_hard --data DATA \\
        --output judges/qwen --backend openai \\
        --base-url http://localhost:8000/v1 --model-name NAME
    galen judge-pairs scores/base scores/tuned --task healthbench_hard --data DATA \\
        --output judges/qwen … --sheet sheet.csv --raters 3
    galen judge-pairs scores/base scores/tuned --task healthbench_hard --data DATA \\
        --output judges/qwen … --ratings sheet.csv

RUN is an output folder of `galen evaluate` with answers to the task. The judge sees both answers in
both orders and chooses the better one, or none, by nine clinical criteria and overall. A choice
that follows the order is a tie. JUDGE/pairs/TASK.json has wins, ties and losses, win rates with
95 % intervals, also by criterion, and Bradley-Terry strengths that are corrected for the judge's
preference for the first and for the longer answer, which are reported too.

--sheet writes the pairs for human raters, without the models' names; --ratings reads the sheet and
measures Cohen's kappa and Kendall's tau of the judge and the raters.
"""

import json
import logging
from pathlib import Path
from typing import Any

from evaluation.judging import answers, options, pair_scores, pairs
from evaluation.judging.pair_scores import Verdict
from evaluation.question_sets import jsonl
from evaluation.reporting import pair_table, rating_sheet
from evaluation.tasks import task
from evaluation.tasks.rubric import RubricTask
from galen import cli, lock
from galen.atomic import write_text
from galen.errors import UsageError

logger = logging.getLogger(__name__)

FOLDER = "pairs"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parsed = _parser().parse_args(argv)
    if len(parsed.run) < 2:
        raise UsageError("give at least two RUNs to compare")
    if parsed.raters < 1:
        raise UsageError("--raters must be at least 1")
    settings = options.settings(parsed, asks_pairs=True)
    name, specification = task.load(parsed.task)
    if not isinstance(specification, RubricTask):
        raise UsageError(
            f"--task {parsed.task} has no conversations; healthbench, for example, has"
        )
    if parsed.ratings is not None:
        rating_sheet.read(parsed.ratings)  # nothing is asked where it has a mistake
    conversations = specification.conversations(parsed.data)
    runs = answers.read_all(parsed.run, name, specification, conversations, parsed.data)
    settings.warn_of_own_answers([run.name for run in runs])
    asked = list(pairs.of_runs(runs, conversations))
    texts = [pair.text() for pair in asked]
    with lock.hold(settings.recipe.output):
        settings.bind()
        judge = settings.load()
        judge.check_lengths(texts)
        estimate = judge.estimate(texts, 1)
        if parsed.estimate_only:
            print(estimate)
            return
        logger.info(f"judge {settings.name}: {estimate}")
        replies = judge.generate(texts, pairs.FORMAT)
        unread = sum(reply.value is None for reply in replies)
        if unread:
            logger.warning(f"{unread:,} of {len(replies):,} comparisons have no verdict")
        verdicts = pair_scores.verdicts(asked, replies)
        summary = {"task": name, "judge": settings.name, "unjudged": unread}
        summary |= pair_scores.summary(verdicts)
        if parsed.ratings is not None:
            summary["human_agreement"] = rating_sheet.agreement(parsed.ratings, verdicts)
        path = _write(settings.recipe.output, name, summary, verdicts)
    if parsed.sheet is not None:
        rating_sheet.write(parsed.sheet, verdicts, parsed.raters)
        logger.info(f"rating sheet: {parsed.sheet}")
    print(pair_table.table(summary))
    logger.info(f"comparison: {path}")


def _write(folder: Path, name: str, summary: dict[str, Any], verdicts: list[Verdict]) -> Path:
    """Write the summary, and the verdicts beside it."""
    path = folder / FOLDER / f"{name}.json"
    lines = [
        jsonl.dump(
            {
                "id": verdict.pair.id,
                "first": verdict.pair.first,
                "second": verdict.pair.second,
                **verdict.choices,
            }
        )
        for verdict in verdicts
    ]
    write_text(path.with_suffix(".verdicts.jsonl"), "\n".join(lines) + "\n")
    write_text(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return path


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    options.add_answer_options(
        parser, "healthbench, for example, or a task file with `kind: rubric`"
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write the pairs for human raters; ratings in an existing sheet are kept",
    )
    parser.add_argument(
        "--raters",
        type=int,
        default=2,
        metavar="N",
        help="columns for raters in the sheet (default: 2)",
    )
    parser.add_argument(
        "--ratings",
        type=Path,
        metavar="FILE",
        help="a sheet that was filled in: measure the judge against it",
    )
    options.add_options(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
