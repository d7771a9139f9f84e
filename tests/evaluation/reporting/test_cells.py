import csv
import io

import pytest

from evaluation import agreement
from evaluation.reporting import cells, report_figures, tables
from evaluation.reporting.tables import Table

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "=",
    "＝1+1",
    "-",
    "-a",
    "'=1",
    "''=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text_in_a_sheet(text):
    cell = cells.for_csv(text)
    assert cell == f"'{text}"
    assert cells.from_csv(cell) == text


@pytest.mark.parametrize(
    "text", ["", "a=b", "-0.0400", "-1e-5", "+3", "'tis", "5 - 4", "'", "1-2", "α"]
)
def test_other_text_and_numbers_stay(text):
    assert cells.for_csv(text) == cells.from_csv(text) == text


def test_latex():
    assert (
        cells.for_latex(r"a\b & 50% $x_1^2$ #{} ~<|>")
        == r"a\textbackslash{}b \& 50\% \$x\_1\textasciicircum{}2\$ \#\{\}"
        r" \textasciitilde{}\textless{}\textbar{}\textgreater{}"
    )
    assert cells.for_latex("[x]\n\n*y") == "{[}x] *y"


def test_tables_of_odd_names():
    table = Table("t", "Title", "Note.", ["model", "value"], [["=a|b\n$c$\\", "-0.5"]], 1)
    assert list(csv.reader(io.StringIO(tables.as_csv(table)))) == [
        ["model", "value"],
        ["'=a|b\n$c$\\", "-0.5"],
    ]
    assert "| =a\\|b $c$\\\\ | -0.5 |\n" in tables.markdown([table])
    assert r"=a\textbar{}b \$c\$\textbackslash{} & -0.5 \\" in tables.latex(table)
    table.rows[0][0] = "<script>&"
    assert "&lt;script>&amp;" in tables.markdown([table])


def test_ratings_of_escaped_ids_are_read(tmp_path):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("id,judge1\n'-7a,4\nb,5\n'=c,3\n")
    assert agreement.read_ratings(sheet) == {"judge1": {"-7a": 4.0, "b": 5.0, "=c": 3.0}}


@pytest.mark.parametrize("name", ["a$b", "$x^{$", "$\\frac$", "_hidden", "a\\$b$"])
def test_names_with_dollars_are_drawn_as_they_are(name):
    bins = [{"confidence": 0.5, "accuracy": 0.4}]
    figure = report_figures.reliability("task", {name: bins})
    assert name.replace("&", "&amp;") in figure
    assert name in report_figures.groups(
        "g", {"m": {name: {"value": 0.5, "low": 0.4, "high": 0.6}}}
    ).replace(" ", "_")
