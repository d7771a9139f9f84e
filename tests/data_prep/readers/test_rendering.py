import pytest

from data_prep.readers.rendering import (
    MarkupOptions,
    MarkupRenderer,
    heading,
    shortened,
    table_rows,
    tidy,
)

DROP = MarkupRenderer(MarkupOptions(citations="drop")).citation("1", [("T", "N")])
TAG = MarkupRenderer(MarkupOptions()).citation("1", [("T", "N")])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("shown [x,x] before", "shown before"),
        ("shown [x]–[x].", "shown."),
        ("shown (x; x and x), then", "shown, then"),
        ("by Wang et al. [x, p. 5]", "by Wang et al. [p. 5]"),
        ("(see text, x) and", "(see text) and"),
        ("disease.x Then", "disease. Then"),
        ("f(a, b) stays [Na+]", "f(a, b) stays [Na+]"),
    ],
)
def test_dropped_citations_leave_no_brackets(text, left):
    assert (
        tidy(
            text.replace("x", DROP)
            if "x" in text and "text" not in text
            else text.replace(" x", f" {DROP}")
        )
        == left
    )


def test_citations_in_full_need_no_brackets():
    assert TAG == "[bib_ref]T, N[/bib_ref]"
    assert (
        tidy(f"a [{TAG},{TAG}] b ({TAG}) c [{TAG}, p. 5] [Na+]")
        == f"a {TAG},{TAG} b {TAG} c [{TAG}, p. 5] [Na+]"
    )


def test_an_unknown_work_is_dropped_or_keeps_its_marker():
    assert tidy("a [" + MarkupRenderer(MarkupOptions()).citation("1", []) + "] b") == "a b"
    assert MarkupRenderer(MarkupOptions(citations="marker")).citation("[1]", [("T", "N")]) == "[1]"


def test_parts():
    assert shortened("a " * 13) == "a a a a a a a a a a a a..."
    assert heading(9, "HIV") == "###### HIV"
    assert (
        table_rows([["a", "b"], ["", ""], ["1|2", ""]]) == "| a | b |\n| --- | --- |\n| 1\\|2 |  |"
    )
