import pytest

from galen import json_file
from galen.errors import DataError


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000,
    ],
)
def test_what_is_no_object_is_reported_in_one_line(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content + (b"}" if content.startswith(b'{"a":9') else b""))
    with pytest.raises(
        DataError, match=r"config\.json (is not JSON|should hold one JSON object)"
    ) as told:
        json_file.read_object(path)
    assert "\n" not in str(told.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*x: No such file"):
        json_file.read_object(tmp_path / "x")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        json_file.read_object(tmp_path)
