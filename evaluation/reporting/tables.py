"""Result tables as data, and as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.reporting import cells, published_results
from evaluation.reporting.comparison import Comparison, with_subsets
from evaluation.reporting.report_inputs import ModelScores
from galen.atomic import write_text


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; the first column names the row."""

    name: str
    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    own: int
    """Number of our own rows, which come first."""


def paper_tables(models: Sequence[ModelScores]) -> list[Table]:
    """Return the papers' tables with at least one column of the models, our rows first."""
    tables = []
    for source in published_results.TABLES:
        own: dict[str, list[str]] = {}
        for model in models:
            values = [_value(model, column) for column in source.columns]
            if any(value is not None for value in values):
                own[model.name] = [model.name, *map(_shown, [*values, _average(values)])]
        if not own:
            continue
        published = [[name, *map(_shown, values)] for name, values in source.rows.items()]
        table = Table(
            name=source.name,
            title=source.title,
            note=f"Published rows: {source.source}.",
            columns=["", *(column.title for column in source.columns), "Average"],
            rows=[*own.values(), *published],
            own=len(own),
        )
        tables.append(table)
    return tables


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return all metrics of all models and tasks: intervals, differences to the first, p-values."""
    columns = [
        "task",
        "model",
        "subset",
        "samples",
        "metric",
        "value",
        "low",
        "high",
        "difference",
        "p",
        "p (Holm)",
    ]
    rows = []
    for compared in with_subsets(comparisons):
        for row in compared.rows:
            for metric, estimate in row.metrics.items():
                tests = [""] * 3
                if metric == compared.metric and row.difference is not None:
                    tests = [
                        f"{row.difference.value:.4f}",
                        f"{row.p:.4g}",
                        f"{row.corrected_p:.4g}",
                    ]
                values = [f"{value:.4f}" for value in (estimate.value, estimate.low, estimate.high)]
                subset = compared.subset or "all"
                samples = str(compared.samples)
                names = [compared.title, row.model, subset, samples, metric]
                rows.append([*names, *values, *tests])
    note = (
        "Intervals are 95 %. p: paired test against the first model; Holm: corrected for all tests"
        " of this table."
    )
    return Table("all", "All metrics", note, columns, rows, len(rows))


def markdown(tables: Sequence[Table]) -> str:
    """Return the tables as GitHub Markdown."""
    return "\n".join(_markdown(table) for table in tables)


def as_csv(table: Table) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    rows = [[cells.for_csv(cell) for cell in row] for row in [table.columns, *table.rows]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def latex(table: Table) -> str:
    """Return a LaTeX `table` with booktabs rules, one between our rows and the published."""
    lines = [" & ".join(map(cells.for_latex, row)) + r" \\" for row in [table.columns, *table.rows]]
    body = [lines[0], r"\midrule", *lines[1 : table.own + 1]]
    if table.own < len(table.rows):
        body += [r"\midrule", *lines[table.own + 1 :]]
    begin = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{cells.for_latex(table.title)}. {cells.for_latex(table.note)}}}",
    ]
    tabular = rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    return "\n".join(
        [*begin, tabular, r"\toprule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )


def write(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write `tables.md`, and NAME.csv and NAME.tex for each table, and return the paths."""
    contents = {"tables.md": markdown(tables)}
    for table in tables:
        contents |= {f"{table.name}.csv": as_csv(table), f"{table.name}.tex": latex(table)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def _value(model: ModelScores, column: published_results.Column) -> float | None:
    """Return our value for a column in percent, or None."""
    for task, subject in column.tasks:
        if task in model.tasks:
            scores = model.tasks[task]
            if not subject:
                return 100 * scores.metrics["accuracy"].value
            if subject in scores.summary.get("by_subject", {}):
                return 100 * scores.summary["by_subject"][subject]["value"]
    return None


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _markdown(table: Table) -> str:
    shown = [[cells.for_markdown(cell) for cell in row] for row in [table.columns, *table.rows]]
    for row in shown[1 : table.own + 1] if table.own < len(table.rows) else []:
        row[0] = f"**{row[0]}**"  # our rows in bold if there are others
    head, *lines = ("| " + " | ".join(row) + " |" for row in shown)
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    return "\n".join([f"### {table.title}", "", head, rule, *lines, "", table.note, ""])
