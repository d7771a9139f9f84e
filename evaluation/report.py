"""Write one self-contained HTML page about a run: its data, its training, scores before and after.

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
    paper_tables,
    rationale_summaries,
    report_inputs,
    tables,
)
from evaluation.reporting.comparison import Comparison, Row
from evaluation.reporting.report_inputs import ModelScores
from evaluation.scoring import option_orders
from galen import cli, lock, page
from galen.atomic import write_text

logger = logging.getLogger(__name__)

_TITLES = {
    "perplexity": "Perplexity",
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "accuracy_argmax": "Most likely option",
    "acc": "Not normalized",
    "acc_norm": "Per character",
    "acc_bytes": "Per byte",
    "accuracy_strict_match": "Strict match",
    "partial_credit": "Partial credit",
    "unparsed": "Unparsed",
    "reached_limit": "Reached the token limit",
    "truncated_thinking": "Thinking cut off",
    "forced": "Answers forced",
    "tokens_per_answer": "Tokens per answer",
    "thinking_tokens_per_answer": "Of these thinking",
    "macro_by_subject": "Mean of subjects",
    "macro_by_language": "Mean of languages",
}


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
    folders = {"Further pretraining": options.pretraining, "Fine-tuning": options.finetuning}
    html = render(
        title=options.title,
        verdicts=[verdict(sample) for sample in comparisons],
        comparisons=comparisons,
        models=models,
        paper=paper,
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
    for sample in comparisons:
        print(verdict(sample))
    for model in models:
        for name, scores in model.tasks.items():
            if scores.summary.get("one_sided"):
                print(f"{model.name}, {name}: {scores.summary['one_sided']}")
    logger.info(f"report: {options.output}")
    if options.tables:
        logger.info(f"tables as Markdown, CSV and LaTeX: {options.tables}")


def verdict(compared: Comparison) -> str:
    """Return a task's outcome: the first model against the second and the last.

    A second sentence is about the clean subset if some samples are contaminated.
    """
    metric = compared.metric
    subject = (
        f"{_TITLES.get(metric, metric)} on {compared.samples:,} {compared.task_type.unit}"
        f" ({compared.title})"
    )
    sentence = f"{subject}{_outcome(compared)}."
    if not compared.subsets:
        return sentence
    contaminated = compared.samples - (compared.clean.samples if compared.clean else 0)
    if compared.clean is None:
        return f"{sentence} All of them are in the training corpus."
    return (
        f"{sentence} Without the {contaminated:,} that are in the training corpus"
        f"{_outcome(compared.clean)}."
    )


def _outcome(compared: Comparison) -> str:
    first, *others = compared.rows
    metric = compared.metric
    before = number(first.metrics[metric].value, metric)
    if not others:
        separator = ":" if compared.subset else " is"
        return f"{separator} {before} ({interval(first, metric)})"
    if len(others) > 2:
        others = [others[0], others[-1]]
    changes = [_change(row, metric) for row in others]
    return f": {before} for {first.model}; {'; '.join(changes)}"


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
            "number": number,
            "duration": duration,
            "signed": signed,
            "p_value": p_value,
        },
        comparisons=comparisons,
        tests=comparison.number_of_tests(comparisons),
        alpha=comparison.ALPHA,
        remarks=remarks,
        corpus=corpus,
        drops=drops(corpus.counts) if corpus else [],
        runs=runs,
        figures=report_figures,
        order_figure=order_figure.positions,
        exclusions=option_orders.exclusions,
        bins_of=lambda by_model: {name: entry["bins"] for name, entry in by_model.items()},
        metric_titles=_TITLES,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **rest,
    )


def remarks(compared: Comparison) -> list[str]:
    """Return sentences about a task's metric and contamination."""
    sentences = []
    if compared.task_type.lower_is_better:
        sentences.append("Lower is better.")
    else:
        sentences.append("Higher is better; differences in percentage points.")
    if compared.chance is not None:
        sentences.append(f"Guessing gives {number(compared.chance, 'accuracy')}.")
    if compared.subsets:
        sentences.append(
            "Contaminated: in the training corpus, by the check of at least one model."
        )
    elif not compared.unchecked:
        sentences.append("No sample is in the training corpus.")
    if len(compared.unchecked) == len(compared.rows):
        sentences.append("Contamination not checked.")
    elif compared.unchecked:
        sentences.append(f"Contamination not checked for {', '.join(compared.unchecked)}.")
    return sentences


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


def number(value: float, metric: str) -> str:
    """Return a formatted metric: accuracy in percent, perplexity below 100 with two decimals."""
    if comparison.is_fraction(metric):
        return f"{100 * value:.1f} %"
    if metric.startswith("bits_per_byte"):
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def signed(value: float, metric: str) -> str:
    """Return a difference with its sign: percentage points, or units of perplexity and the like."""
    text = f"{100 * value:+.1f}" if comparison.is_fraction(metric) else f"{value:+.2f}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Return a formatted p-value; a significant one is never rounded to the level."""
    if value < 0.001:
        return "< 0.001"
    text = f"{value:.3f}"
    return f"< {comparison.ALPHA}" if value < comparison.ALPHA <= float(text) else text


def interval(row: Row, metric: str) -> str:
    """Return a value's 95 % interval in words."""
    estimate = row.metrics[metric]
    return (
        f"95 % interval {number(estimate.low, metric).removesuffix(' %')} to"
        f" {number(estimate.high, metric)}"
    )


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


def _change(row: Row, metric: str) -> str:
    """Return how a model compares with the first one; "rose" and "fell" only if that is clear."""
    difference = row.difference
    assert difference is not None  # only the first row has none
    value = number(row.metrics[metric].value, metric)
    if row.judgement == "unclear":
        change = f"{value} for {row.model}, no clear change"
    else:
        verb = "fell" if difference.value < 0 else "rose"
        change = f"{verb} to {value} for {row.model}"
    unit = " points" if comparison.is_fraction(metric) else ""
    low = signed(difference.low, metric)
    high = signed(difference.high, metric)
    interval = f"difference {signed(difference.value, metric)}{unit}, 95 % interval {low} to {high}"
    return f"{change} ({interval}), corrected p{_relation(row.corrected_p)}"


def _relation(p: float | None) -> str:
    text = p_value(1.0 if p is None else p)
    return f" {text}" if text.startswith("<") else f" = {text}"


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
        "--times",
        type=Path,
        metavar="FILE",
        help='seconds of each stage, as JSON: {"stage": {"title": …, "seconds": …}, …}',
    )
    parser.add_argument(
        "--title",
        default="Galen: before and after medical training",
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
