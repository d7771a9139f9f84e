"""Write one self-contained HTML page: scores, their comparison, the data and training behind them.

    galen report scores/base scores/pretrained scores/finetuned --corpus corpus \\
        --pretraining runs/pretrain --finetuning runs/finetune --output report.html

The first results folder is the baseline that the others are compared with, on the same samples.
Only the results are required; without the other inputs their sections are omitted. The folders come
from `galen evaluate`, `galen curate`, `galen pretrain` and `galen finetune`.
"""

import argparse
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.reporting import (
    comparison,
    error_analysis,
    judged,
    paper_tables,
    rationale_summaries,
    report_inputs,
    tables,
    verdicts,
)
from evaluation.reporting.comparison import Comparison
from evaluation.reporting.report_inputs import ModelScores
from evaluation.scoring import option_orders
from galen import cli, lock, page
from galen.atomic import write_text

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(argv)
    with contextlib.ExitStack() as locks:
        for output in filter(None, (options.output, options.tables)):
            locks.enter_context(lock.hold(output))
        _report(options)


def _report(options: argparse.Namespace) -> None:
    """Read the inputs, and write the page and the tables."""
    models = report_inputs.named([report_inputs.read_scores(folder) for folder in options.results])
    comparisons = comparison.compare(models)
    rationales = rationale_summaries.read(options.rationales)
    paper = paper_tables.paper_tables(models, rationales)
    judges = judged.read(options.judges)
    folders = {"Further pretraining": options.pretraining, "Fine-tuning": options.finetuning}
    html = render(
        title=options.title,
        verdicts=[verdicts.verdict(sample) for sample in comparisons],
        comparisons=comparisons,
        models=models,
        paper=paper,
        judges=judges,
        grouped=grouped(models),
        calibrations=calibrations(models),
        letters=letters(models),
        order_biases=order_biases(models),
        wrong=wrong_answers(models),
        corpus=report_inputs.read_corpus(options.corpus) if options.corpus else None,
        runs={title: report_inputs.read_run(folder) for title, folder in folders.items() if folder},
        times=report_inputs.read_times(options.times) if options.times else [],
    )
    write_text(options.output, html)
    if options.tables:
        tables.write(options.tables, [*paper, tables.comparison_table(comparisons)])
    for compared in comparisons:
        print(verdicts.verdict(compared))
        for sentence in verdicts.truncations(compared):
            print(f"{compared.title}: {sentence}")
    for model in models:
        for name, scores in model.tasks.items():
            if scores.summary.get("one_sided"):
                print(f"{model.name}, {name}: {scores.summary['one_sided']}")
    logger.info(f"report: {options.output}")
    if options.tables:
        logger.info(f"tables as Markdown, CSV and LaTeX: {options.tables}")


def render(
    *,
    comparisons: Sequence[Comparison],
    corpus: report_inputs.Corpus | None,
    runs: dict[str, report_inputs.Run],
    **rest: Any,
) -> str:
    """Return the page as HTML; `rest` is passed to the template."""
    # matplotlib takes a second to import
    from evaluation.reporting import order_figure, report_figures

    return page.render(
        Path(__file__).parent / "reporting" / "report.html.j2",
        filters={
            "number": verdicts.number,
            "duration": duration,
            "signed": verdicts.signed,
            "with_sign": verdicts.with_sign,
            "p_value": verdicts.p_value,
        },
        comparisons=comparisons,
        tests=comparison.number_of_tests(comparisons),
        alpha=comparison.ALPHA,
        remarks=verdicts.remarks,
        corpus=corpus,
        drops=drops(corpus.counts) if corpus else [],
        runs=runs,
        figures=report_figures,
        order_figure=order_figure.positions,
        exclusions=option_orders.exclusions,
        bins_of=lambda by_model: {name: entry["bins"] for name, entry in by_model.items()},
        metric_title=verdicts.metric_title,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **rest,
    )


def grouped(models: Sequence[ModelScores]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Return each model's accuracies by group, under (task, "subject" or "language").

    Tasks without groups are omitted.
    """
    accuracies: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for model in models:
        for name, scores in model.tasks.items():
            if not scores.task_type.uses_protocol:
                continue
            for criterion in ("subject", "language"):
                if by_group := scores.summary.get(f"by_{criterion}"):
                    accuracies.setdefault((name, criterion), {})[model.name] = by_group
    languages = {model.name: _by_task_language(model) for model in models}
    if any(len(entries) > 1 for entries in languages.values()):
        accuracies["MMedBench", "language"] = {
            name: entries for name, entries in languages.items() if entries
        }
    return accuracies


def _by_task_language(model: ModelScores) -> dict[str, Any]:
    prefix = "mmedbench_"
    return {
        name.removeprefix(prefix): scores.metrics["accuracy"].as_dict()
        for name, scores in model.tasks.items()
        if name.startswith(prefix)
    }


def calibrations(models: Sequence[ModelScores]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, for each task with option probabilities, each model's calibration."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for model in models:
        for name, scores in model.tasks.items():
            if scores.summary.get("calibration", {}).get("bins"):
                by_task.setdefault(name, {})[model.name] = scores.summary["calibration"]
    return by_task


def letters(models: Sequence[ModelScores]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, for each task, each model's summary with the counts of its answers."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for model in models:
        for name, scores in model.tasks.items():
            if scores.summary.get("predictions"):
                by_task.setdefault(name, {})[model.name] = scores.summary
    return by_task


def order_biases(models: Sequence[ModelScores]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, for each task scored in several option orders, each model's order bias."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for model in models:
        for name, scores in model.tasks.items():
            order_bias = scores.summary.get("order_bias")
            if order_bias and order_bias["questions"]:
                by_task.setdefault(name, {})[model.name] = order_bias
    return by_task


def wrong_answers(
    models: Sequence[ModelScores],
) -> dict[tuple[str, str], list[error_analysis.WrongAnswer]]:
    """Return the most confident errors by model and task."""
    by_model_and_task = {}
    for model in models:
        for name, scores in model.tasks.items():
            if scores.task_type.uses_protocol:
                errors = error_analysis.most_confident_errors(
                    model.folder, name, scores.summary, scores.samples
                )
                if errors:
                    by_model_and_task[model.name, name] = errors
    return by_model_and_task


def drops(counts: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the reasons for which documents were dropped, the most frequent first."""
    return [
        (f"dropped, {reason}", records)
        for reason, records in sorted(counts["dropped"].items(), key=lambda sample: -sample[1])
    ]


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 90
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULTS_DIR",
        help="output folders of `galen evaluate`; the first is the baseline",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="curated corpus, for counts, reasons of drops, years, lengths",
    )
    parser.add_argument(
        "--pretraining",
        type=Path,
        metavar="RUN",
        help="run folder of `galen pretrain`, for its loss curve",
    )
    parser.add_argument(
        "--finetuning",
        type=Path,
        metavar="RUN",
        help="run folder of `galen finetune`, for its loss curve",
    )
    parser.add_argument(
        "--rationales",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="summaries of `galen rationales`, for MMedBench's tables of BLEU-1 and ROUGE-1",
    )
    parser.add_argument(
        "--judges",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of judges, with scores of `galen judge` and `galen judge-pairs`",
    )
    parser.add_argument(
        "--times",
        type=Path,
        metavar="FILE",
        help='seconds of each stage, as JSON: {"stage": {"title": …, "seconds": …}, …}',
    )
    parser.add_argument(
        "--title",
        default="Galen: evaluation report",
        help="title of the page (default: %(default)s)",
    )
    parser.add_argument(
        "--tables",
        type=Path,
        metavar="DIR",
        help="also write the tables to this folder, as Markdown, CSV and LaTeX",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the HTML page to write; an existing one is replaced",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
