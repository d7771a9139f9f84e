import hashlib

import pytest

from data_prep.tokenization.input_blocks import STDIN, FileRange
from data_prep.tokenization.input_hashes import InputHashes
from galen.errors import DataError


def test_more_records_than_a_pipe_holds(tmp_path):
    parts = [FileRange(tmp_path / f"{'long_name_' * 20}{number}") for number in range(500)]
    for number, part in enumerate(parts):
        part.path.write_text(str(number))
    ranges = [FileRange(parts[0].path, 0, 1), FileRange(parts[499].path, 1, 3)]
    hashes = InputHashes([FileRange(STDIN), *parts, *ranges])
    for content, part in (
        (b"0", ranges[0]),
        (b"99", ranges[1]),
        (b"0", parts[0]),
        (b"499", parts[499]),
    ):
        found = hashes.record(part)
        assert (found["path"], found["bytes"]) == (str(part.path), len(content))
        assert found["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_gone(tmp_path):
    (tmp_path / "a").write_text("a")
    parts = [FileRange(tmp_path / "a"), FileRange(tmp_path / "b")]
    hashes = InputHashes(parts)
    assert hashes.record(parts[0])["bytes"] == 1
    with pytest.raises(DataError, match="b cannot be read: No such file"):
        hashes.record(parts[1])
