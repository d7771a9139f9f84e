"""Output files have the written bytes, of any sizes, and their hash; a full disk, one message."""

import hashlib
import os
import random

import pytest
import torch

from checkpoints_convert.resumable_io import output_file
from checkpoints_convert.resumable_io.output_file import OutputFile
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import write_entry

BLOCK = 8 * 2**20


@pytest.mark.parametrize("size", [0, 1, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5000])
def test_bytes_and_hash(tmp_path, size):
    data = random.Random(size).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(b"of an earlier start" * 1000)
    heard = []
    output = OutputFile(path, heard.append)
    cuts = sorted(random.Random(1).choices(range(size + 1), k=6))
    for start, stop in zip([0, *cuts], [*cuts, size], strict=True):
        assert output.tell() == start
        output.write(data[start:stop])
    assert output.close() == hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == data
    assert sum(heard) == size


def test_a_file_system_without_direct_writing(tmp_path, monkeypatch):
    """tmpfs of older kernels and some network file systems refuse O_DIRECT."""
    direct, opened = os.O_DIRECT, os.open

    def refuses(path, flags, *rest, **named):
        if flags & direct:
            raise OSError(22, "Invalid argument")
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuses)
    output = OutputFile(tmp_path / "file")
    output.write(b"a" * (BLOCK + 1))
    output.close()
    assert (tmp_path / "file").read_bytes() == b"a" * (BLOCK + 1)


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "other").write_text("not ours")
    (tmp_path / "file").symlink_to(tmp_path / "other")
    output = OutputFile(tmp_path / "file")
    output.write(b"ours")
    output.close()
    assert (tmp_path / "other").read_text() == "not ours"
    assert (tmp_path / "file").read_bytes() == b"ours"


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(output_file, "_open", lambda _: os.open("/dev/full", os.O_WRONLY))
    output = OutputFile(tmp_path / "full")
    with pytest.raises(
        DataError, match=r"cannot write .*full: No space left on device; .* to resume"
    ):
        write_entry(
            output, "full", "key", (3 * BLOCK,), (0,), torch.zeros(3 * BLOCK, dtype=torch.uint8)
        )
    output.abandon()
    short = OutputFile(tmp_path / "full")
    short.write(b"a few bytes")
    with pytest.raises(DataError, match="No space left"):
        short.close()
