"""Result tables as data, and as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.reporting import cells
from evaluation.reporting.comparison import Comparison, with_subsets
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
    bold: frozenset[int] = frozenset()
    """Indices of our own rows that are comparable with the published ones."""
    footnotes: tuple[str, ...] = ()
    """Explanations of the marks [1], [2] … in the first column."""
    row_notes: tuple[str, ...] = ()
    """The footnote of each of our own rows, or an empty text; a column of CSV files."""

    def bold_name(self, index: int, name: str, bold: str) -> str:
        """Return the name of a row, formatted by `bold` ("**{}**") if the row is in bold."""
        return bold.replace("{}", name) if index in self.bold else name


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
    lines = [table.columns, *table.rows]
    if table.row_notes:
        notes = [*table.row_notes, *[""] * (len(table.rows) - table.own)]
        lines = [[*line, note] for line, note in zip(lines, ["note", *notes], strict=True)]
    rows = [[cells.for_csv(cell) for cell in line] for line in lines]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def latex(table: Table) -> str:
    """Return a LaTeX `table` with booktabs rules, one between our rows and the published."""
    lines = [_latex_row([cells.for_latex(cell) for cell in table.columns])]
    for index, row in enumerate(table.rows):
        escaped = [cells.for_latex(cell) for cell in row]
        escaped[0] = table.bold_name(index, escaped[0], r"\textbf{{}}")
        lines.append(_latex_row(escaped))
    body = [lines[0], r"\midrule", *lines[1 : table.own + 1]]
    if table.own < len(table.rows):
        body += [r"\midrule", *lines[table.own + 1 :]]
    end = [r"\bottomrule", r"\end{tabular}"]
    for number, footnote in enumerate(table.footnotes, start=1):
        end.append(rf"\par\footnotesize {{}}[{number}] {cells.for_latex(footnote)}")
    begin = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{cells.for_latex(table.title)}. {cells.for_latex(table.note)}}}",
    ]
    tabular = rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    return "\n".join([*begin, tabular, r"\toprule", *body, *end, r"\end{table}", ""])


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(row) + r" \\"


def write(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write `tables.md`, and NAME.csv and NAME.tex for each table, and return the paths."""
    contents = {"tables.md": markdown(tables)}
    for table in tables:
        contents |= {f"{table.name}.csv": as_csv(table), f"{table.name}.tex": latex(table)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def _markdown(table: Table) -> str:
    lines: list[str] = []
    for row in [table.columns, *table.rows]:
        shown = [cells.for_markdown(cell) for cell in row]
        shown[0] = table.bold_name(len(lines) - 1, shown[0], "**{}**")
        lines.append("| " + " | ".join(shown) + " |")
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    footnotes = []
    for number, footnote in enumerate(table.footnotes, start=1):
        footnotes += [f"\\[{number}] {cells.for_markdown(footnote)}", ""]
    head, *rows = lines
    return "\n".join([f"### {table.title}", "", head, rule, *rows, "", table.note, "", *footnotes])
