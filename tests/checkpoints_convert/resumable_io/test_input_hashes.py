"""Hashes beside the conversion: right, not too far ahead of it, gone when it fails."""

import hashlib

import pytest

from checkpoints_convert.resumable_io import input_hashes
from checkpoints_convert.resumable_io.input_hashes import InputHashes


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(input_hashes, "_BLOCK", 1000)
    for number in range(4):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10_500)
    return [tmp_path / str(number) for number in range(4)]


def test_hashes_are_right(files):
    with InputHashes(files) as hashes:
        assert hashes.result() == {
            path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }


def test_they_wait_for_the_conversion(files, monkeypatch):
    monkeypatch.setattr(input_hashes, "_AHEAD", 9_000)
    monkeypatch.setattr(input_hashes, "_BEHIND", 2_000)
    with InputHashes(files) as hashes:
        while hashes.hashed <= 9_000:
            pass
        assert hashes.hashed <= 9_000 + 1_000
        hashes.advance(0.5)
        while hashes.hashed <= 21_000 + 9_000:
            pass
        assert hashes.hashed <= 21_000 + 9_000 + 1_000
        assert len(hashes.result()) == 4


def test_a_conversion_that_fails_does_not_wait_for_them(files, monkeypatch):
    monkeypatch.setattr(input_hashes, "_AHEAD", 0)
    with pytest.raises(KeyError), InputHashes(files):
        raise KeyError


def test_a_missing_file_is_reported_by_result_only(files, tmp_path):
    with InputHashes([*files, tmp_path / "missing"]) as hashes, pytest.raises(FileNotFoundError):
        hashes.result()
