"""Score answers against rubrics with a judge: HealthBench and tasks like it.

    galen evaluate --model MODEL --tasks healthbench_hard --protocol chat \\
        --data DATA --output scores/base
    galen judge scores/base scores/tuned --task healthbench_hard --data DATA \\
        --output judges/qwen --backend openai \\
        --base-url http://localhost:8000/v1 --model-name NAME
    galen judge scores/base --task healthbench_hard --data DATA \\
        --output judges/local --model JUDGE

RUN is an output folder of `galen evaluate` with answers to the task. Each criterion of each answer
is a question to the judge; verdicts are appended to JUDGE/replies.jsonl at once, so that an
interrupted run resumes and no question is asked twice, also not for another RUN. The judge's folder
belongs to one judge: scores of two judges do not mix. How far the judge agrees with physicians and
with itself: `galen judge-agreement`.

JUDGE/scores/MODEL.TASK.json has the score (mean over conversations, clipped to 0 to 1, with a 95 %
interval), the scores by theme and axis, the worst of k answers, and the difference from the first
RUN; MODEL.TASK.samples.jsonl the verdicts.
"""

import logging
from collections.abc import Sequence
from typing import Any

from evaluation.judging import agreement_file, answers, options, score_files
from evaluation.judging.answers import AnsweredRun
from evaluation.judging.judge import Judge
from evaluation.judging.options import JudgeSettings
from evaluation.judging.score_files import JudgedRun
from evaluation.metrics import significance
from evaluation.question_sets.rubric_reader import RubricConversation
from evaluation.reporting import judged_table
from evaluation.scoring import model_names
from evaluation.tasks import task
from evaluation.tasks.rubric import RubricTask
from galen import cli, lock
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parsed = _parser().parse_args(argv)
    settings = options.settings(parsed)
    name, specification = task.load(parsed.task)
    if not isinstance(specification, RubricTask):
        raise UsageError(f"--task {parsed.task} has no rubrics; healthbench, for example, has")
    conversations = specification.conversations(parsed.data)
    if not conversations[0].rubric:
        raise UsageError(f"--task {parsed.task} has no rubrics; see `galen judge-pairs`")
    runs = answers.read_all(parsed.run, name, specification, conversations, parsed.data)
    model_names.check_files([run.name for run in runs])
    settings.warn_of_own_answers([run.name for run in runs])
    with lock.hold(settings.recipe.output):
        settings.bind()
        judge = settings.load()
        questions = [item for run in runs for item in answers.questions(run, conversations)]
        estimate = settings.estimate(judge, questions)
        if parsed.estimate_only:
            print(estimate)
            return
        logger.info(f"judge {settings.name}: {estimate}")
        judged = [_judged(run, conversations, settings, judge) for run in runs]
        entries = _write(judged, name, specification, conversations, settings)
    agreement = agreement_file.read(settings.recipe.output)
    print(judged_table.table(entries, agreement_file.sentence(settings.name, agreement)))


def _judged(
    run: AnsweredRun,
    conversations: list[RubricConversation],
    settings: JudgeSettings,
    judge: Judge,
) -> JudgedRun:
    replies = settings.verdicts(judge, answers.questions(run, conversations))
    judged = score_files.judged(run, conversations, replies)
    if judged.unjudged:
        logger.warning(
            f"{run.name}: no score for {judged.unjudged} of {len(judged.verdicts)} conversations:"
            " the judge gave no verdict on a criterion"
        )
    return judged


def _write(
    judged: Sequence[JudgedRun],
    name: str,
    specification: RubricTask,
    conversations: list[RubricConversation],
    settings: JudgeSettings,
) -> list[dict[str, Any]]:
    """Write the scores of all runs; return them."""
    correction = score_files.adjustment(specification)
    means = [score_files.sample_scores(run, correction) for run in judged]
    entries = [
        score_files.entry(run, name, specification, conversations, settings.name) for run in judged
    ]
    differences = {
        entry["model"]: score_files.difference(means[0], of_run)
        for entry, of_run in zip(entries[1:], means[1:], strict=True)
    }
    tested = {model: value for model, value in differences.items() if value is not None}
    if missing := differences.keys() - tested.keys():
        raise DataError(f"{min(missing)} and {entries[0]['model']} share no judged conversation")
    corrected = significance.holm({model: p for model, (_, p) in tested.items()})
    for entry, run, of_run in zip(entries, judged, means, strict=True):
        if entry["model"] in tested:
            estimate, p = tested[entry["model"]]
            entry["difference"] = {
                "from": entries[0]["model"],
                **score_files.as_dict(estimate, p),
                "corrected_p": corrected[entry["model"]],
            }
        path = score_files.write(settings.recipe.output, entry, run, of_run)
        logger.info(f"scores: {path}")
    return entries


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    options.add_answer_options(
        parser, "healthbench, healthbench_hard, …_consensus, …_professional, or a task file"
    )
    options.add_options(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
