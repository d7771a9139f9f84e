"""Sheets that people fill in: what they entered is never lost."""

import pytest

from evaluation import agreement
from evaluation.reporting import sheet
from galen.errors import DataError, UsageError

GIVEN, JUDGES = ["id", "question"], ["judge1", "judge2"]
ROWS = [["a", "One?"], ["b", 'Two,\n"three"?'], ["c", "=SUM(1)"]]


def test_what_was_entered_stays(tmp_path):
    path = tmp_path / "sheet.csv"
    assert sheet.write(path, GIVEN, ROWS, JUDGES)
    empty = path.read_bytes()
    assert not sheet.write(path, GIVEN, ROWS, JUDGES) and path.read_bytes() == empty
    # as a spreadsheet saves it, with a remark of the judge's own
    filled = (
        "\ufeffid;question;judge1;judge2;remark\r\n"
        "a;One?;4;;good\r\n"
        'b;"Two,\r\n""three""?";2,5;3;\r\n'
        "c;=SUM(1);;;\r\n"
    )
    path.write_bytes(filled.replace(";", ",").replace("2,5", '"2,5"').encode())
    before = path.read_bytes()
    assert not sheet.write(path, GIVEN, ROWS, JUDGES) and path.read_bytes() == before
    # a further judge and a further row
    assert sheet.write(path, GIVEN, [*ROWS, ["d", "Four?"]], [*JUDGES, "judge3"])
    assert agreement.read_ratings(path) == {"judge1": {"a": 4, "b": 2.5}, "judge2": {"b": 3}}
    found = sheet.read(path)
    assert found.columns == ["id", "question", "judge1", "judge2", "remark", "judge3"]
    assert [row["id"] for row in found.rows] == ["a", "b", "c", "d"] and found.rows[0][
        "remark"
    ] == "good"


def test_semicolons_between_cells_where_the_comma_is_the_decimal_mark(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("\ufeffid;question;judge1;judge2\r\na;One?;2,5;\r\nb;Two, three?;;3\r\n")
    assert agreement.read_ratings(path) == {"judge1": {"a": 2.5}, "judge2": {"b": 3}}
    assert sheet.read(path).rows[1]["question"] == "Two, three?"


def test_formulas_stay_text(tmp_path):
    path = tmp_path / "sheet.csv"
    rows = [["-1", "=cmd|' /C calc'!A0"], ["'x", "+1"], ["'=y", "@a"]]
    sheet.write(path, GIVEN, rows, ["judge1"])
    assert path.read_text() == "id,question,judge1\n-1,'=cmd|' /C calc'!A0,\n'x,+1,\n''=y,'@a,\n"
    path.write_text(path.read_text().replace("A0,", "A0,4").replace("+1,", "+1,2"))
    assert not sheet.write(path, GIVEN, rows, ["judge1"])
    assert agreement.read_ratings(path) == {"judge1": {"-1": 4, "'x": 2}}


def test_ratings_of_another_text_are_refused(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("id,question,judge1\na,One?,4\nb,Two?,\n")
    before = path.read_bytes()
    for rows in ([["a", "Another?"], ["b", "Two?"]], [["b", "Two?"]]):
        with pytest.raises(
            UsageError, match=r"sheet\.csv, line 2: the entries for 'a' belong to another text"
        ):
            sheet.write(path, GIVEN, rows, JUDGES)
        assert path.read_bytes() == before
    # nothing was entered for b
    assert sheet.write(path, GIVEN, [["a", "One?"], ["b", "Three?"]], ["judge1"])
    assert path.read_text() == "id,question,judge1\na,One?,4\nb,Three?,\n"


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "thesis.csv"
    for content, error in (
        (b"mine", DataError),
        (b"id,name\n1,x\n", UsageError),
        (b"", DataError),
        (b"\xff", DataError),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=r"thesis\.csv"):
            sheet.write(path, GIVEN, ROWS, JUDGES)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,judge1\na,x\n", "line 2: column 'judge1' must be a number, not 'x'"),
        (b"id,judge1\na,n/a\n", "not 'n/a'; leave the cell empty where there is no rating"),
        (b"id,judge1\na,nan\n", "line 2: column 'judge1' must be a number, not 'nan'"),
        (b"id,judge1\na,1\na,2\n", "line 3: judge1 has rated 'a' before"),
        (b'id,judge1\na,1\n"b,2\nc,3\n', "line 3: unexpected end of data; is a quote not closed"),
        (b"id,judge1\na,1,2\n", "line 2: 3 cells, but there are 2 columns"),
        ("id,judge1\né,1\n".encode("latin-1"), "line 2: not UTF-8 text"),
        (b"id,judge1\n" + b'"a' * 100_000, "line 2: "),
        (b"name,judge1\n", "line 1: expected a column 'id'"),
        (b"id,id\n", "each column once"),
        (
            b"id,judge" + b"1" * 1000 + b"\na,x\n",
            "line 1: the name of a column has 1005 characters, at most 100 are read$",
        ),
        (b"id,rating\na,1\n", "a column 'judge…' for each judge"),
    ],
)
def test_damaged_ratings(tmp_path, content, message):
    (tmp_path / "sheet.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"sheet\.csv.*{message}"):
        agreement.read_ratings(tmp_path / "sheet.csv")
