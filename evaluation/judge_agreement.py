"""Measure how far a judge agrees with physicians, with itself, and with another judge.

    galen judge-agreement --meta-eval healthbench/2025-05-07-06-14-12_oss_meta_eval.jsonl \\
        --output judges/qwen --backend openai \\
        --base-url http://localhost:8000/v1 --model-name NAME --repeats 3 --limit 2000
    galen judge-agreement --compare judges/qwen judges/other

The labels are those of HealthBench's published meta-evaluation: an answer, a criterion, and the
labels of several physicians. The macro F1 is the published one: each pair of the judge's and a
physician's label counts, "met" and "not met" have the same weight. JUDGE/agreement.json has it,
also by theme, beside the physicians' own, with 95 % intervals; `galen judge` shows it with each
score. --repeats asks again with sampling and counts on how many answers all repeats agree.

--compare reads the verdicts of two judges: Cohen's kappa on the labeled answers and on the answers
that both have judged, and the difference of their scores.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.judging import agreement_file, compared_judges, options
from evaluation.judging.judge import Reply
from evaluation.judging.verdicts import Question
from evaluation.metrics import rater_agreement
from evaluation.metrics.rater_agreement import Rating
from evaluation.question_sets import jsonl, rubric_reader
from evaluation.question_sets.rubric_reader import Criterion, LabeledAnswer
from evaluation.reporting import plain_table
from galen import cli, lock
from galen.atomic import write_text
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    parsed = parser.parse_args(argv)
    if parsed.compare:
        first, second = parsed.compare
        print(compared_judges.table(first, second))
        return
    if parsed.meta_eval is None or parsed.output is None:
        raise UsageError("give --meta-eval FILE and --output DIR, or --compare JUDGE JUDGE")
    if parsed.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    if parsed.limit is not None and parsed.limit < 1:
        raise UsageError("--limit must be at least 1")
    settings = options.settings(parsed)
    if parsed.repeats > 1 and not settings.is_generated:
        raise UsageError("--repeats: likelihoods of Yes and No are the same each time")
    labeled = rubric_reader.sample(rubric_reader.read_labeled(parsed.meta_eval), parsed.limit)
    if not labeled:
        raise DataError(f"{parsed.meta_eval} holds no labeled answer")
    questions = [_question(item) for item in labeled]
    with lock.hold(settings.recipe.output):
        settings.bind()
        judge = settings.load()
        estimate = settings.estimate(judge, questions, parsed.repeats)
        if parsed.estimate_only:
            print(estimate)
            return
        logger.info(f"judge {settings.name}: {estimate}")
        replies = [settings.verdicts(judge, questions, repeat) for repeat in range(parsed.repeats)]
        agreement = measure(settings.name, labeled, replies)
        lines = [
            jsonl.dump({"id": item.id, "is_met": verdict.value})
            for item, verdict in zip(labeled, replies[0], strict=True)
        ]
        write_text(settings.recipe.output / agreement_file.LABELS, "\n".join(lines) + "\n")
        path = agreement_file.write(settings.recipe.output, agreement)
    print(_table(agreement))
    logger.info(f"agreement: {path}")


def _question(item: LabeledAnswer) -> Question:
    return Question(item.messages, item.answer, Criterion(item.criterion, 1.0))


def measure(
    judge: str, labeled: Sequence[LabeledAnswer], replies: Sequence[Sequence[Reply]]
) -> dict[str, Any]:
    """Return a judge's agreement, of JSON types.

    Args:
        judge: its name.
        labeled: answers with the labels of physicians.
        replies: of each repetition the verdict on each answer.

    Raises:
        DataError: no answer has a verdict.
    """
    judged = [
        (item, verdict.value)
        for item, verdict in zip(labeled, replies[0], strict=True)
        if verdict.value is not None
    ]
    if not judged:
        raise DataError(f"{judge} gave no verdict that can be read")
    counts = rater_agreement.pair_counts([Rating(met, item.labels) for item, met in judged])
    clusters = [json.dumps(item.messages) for item, _ in judged]
    themes: dict[str, list[int]] = defaultdict(list)
    for index, (item, _) in enumerate(judged):
        themes[item.theme].append(index)
    by_theme = {}
    for theme, indices in sorted(themes.items()):
        estimate = rater_agreement.macro_f1_estimate(
            counts[indices], [clusters[index] for index in indices]
        )
        by_theme[theme] = {"samples": len(indices), **estimate.as_dict()}
    return {
        "judge": judge,
        "samples": len(judged),
        "unjudged": len(labeled) - len(judged),
        "macro_f1": rater_agreement.macro_f1_estimate(counts, clusters).as_dict(),
        "by_theme": by_theme,
        "met_by_judge": float(np.mean([met for _, met in judged])),
        "met_by_physicians": float(np.mean([np.mean(item.labels) for item, _ in judged])),
        "physicians_macro_f1": _physicians(labeled),
        "repeats": len(replies),
        "self_consistency": _consistency(replies),
    }


def _physicians(labeled: Sequence[LabeledAnswer]) -> float | None:
    """Return the mean macro F1 of each physician against the others; None without their ids."""
    ratings: dict[str, list[Rating]] = defaultdict(list)
    for item in labeled:
        for index, physician in enumerate(item.physicians):
            others = item.labels[:index] + item.labels[index + 1 :]
            if others:
                ratings[physician].append(Rating(item.labels[index], others))
    scores = [
        rater_agreement.macro_f1(rater_agreement.pair_counts(own)) for own in ratings.values()
    ]
    return float(np.mean(scores)) if scores else None


def _consistency(replies: Sequence[Sequence[Reply]]) -> float | None:
    """Return the fraction of answers on which all repetitions agree."""
    if len(replies) < 2:
        return None
    agreed = []
    for of_answer in zip(*replies, strict=True):
        values = {reply.value for reply in of_answer}
        # repetitions without a verdict do not agree on one
        agreed.append(len(values) == 1 and None not in values)
    return float(np.mean(agreed))


def _table(agreement: dict[str, Any]) -> str:
    rows = [["theme", "answers", "macro F1", "95 % interval"]]
    groups = {"all": {"samples": agreement["samples"], **agreement["macro_f1"]}}
    for theme, entry in {**groups, **agreement["by_theme"]}.items():
        interval = f"{entry['low']:.3f} to {entry['high']:.3f}"
        rows.append([theme, f"{entry['samples']:,}", f"{entry['value']:.3f}", interval])
    lines = plain_table.lines(rows)
    lines.append(
        f"met: judge {100 * agreement['met_by_judge']:.1f} %, physicians"
        f" {100 * agreement['met_by_physicians']:.1f} %"
    )
    if agreement["unjudged"]:
        lines.append(f"note: no verdict on {agreement['unjudged']:,} answers")
    return "\n".join([agreement_file.sentence(agreement["judge"], agreement), *lines])


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--meta-eval", type=Path, metavar="FILE", help="HealthBench's published meta-evaluation"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="judge only N labeled answers, chosen by a hash of their ids",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="verdicts on each answer, those after the first sampled (default: 1)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar="JUDGE",
        help="compare the verdicts in the folders of two judges",
    )
    options.add_options(parser, needs_output=False)
    return parser


if __name__ == "__main__":
    cli.run(main)
