"""Files that were tokenized again at the same path are different data.

No old index is read for them, and no run resumes with them. Times of change and the order of
sources do not matter.
"""

import os
import shutil

import numpy
import pytest

from megatron_ext.data.data_identity import fingerprint
from tests.megatron_ext.conftest import log, losses, write
from tests.megatron_ext.kills import rewind


def documents(count, length, first=0):
    return [(first + number + numpy.arange(length)) % 300 for number in range(count)]


def test_a_fingerprint_sees_lengths_and_tokens(tmp_path):
    first = fingerprint(str(write(tmp_path / "first", documents(20, 30))))
    assert fingerprint(str(write(tmp_path / "moved", documents(20, 30)))) == first
    others = [documents(30, 20), documents(20, 30, first=1), documents(21, 30)]
    fingerprints = {
        fingerprint(str(write(tmp_path / f"other_{number}", other)))
        for number, other in enumerate(others)
    }
    assert len(fingerprints | {first}) == 4


@pytest.mark.slow
def test_a_new_run_does_not_read_the_index_of_earlier_files(tmp_path, pretrain_forked):
    prefix = tmp_path / "d_text_document"
    reads = [f"data.train=[{prefix}]", f"data.validation=[{prefix}]"]
    output = tmp_path / "run"
    write(prefix, documents(40, 50))
    pretrain_forked(1, *reads, output=output)
    for path in set(output.iterdir()) - {output / "data_cache"}:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write(prefix, documents(50, 40, first=7))
    pretrain_forked(1, *reads, output=output)
    fresh = pretrain_forked(1, *reads)
    for record_kind in ("train", "validation"):
        assert losses(output, record_kind) == losses(fresh, record_kind)


@pytest.mark.multiprocess
def test_a_run_does_not_resume_with_other_data(tmp_path, pretrain_forked):
    prefix = tmp_path / "d_text_document"
    options = [f"data.train=[{prefix}]", "training.save_interval=2"]
    output = tmp_path / "run"
    write(prefix, documents(40, 50))
    pretrain_forked(2, *options, output=output)
    rewind(output, 2)
    write(prefix, documents(40, 50, first=7))
    codes, written = pretrain_forked(2, *options, output=output, check=False)
    assert codes == [1, 1]
    assert (
        written.count(
            f"error: {prefix}: the files are not those that the run in {output} began with"
        )
        == 1
    )
    assert "Traceback" not in written
    write(prefix, documents(40, 50))
    pretrain_forked(2, *options, output=output)
    assert log(output, "train")[-1]["step"] == 4


@pytest.mark.slow
def test_a_run_resumes_with_touched_files_and_reordered_sources(tmp_path, pretrain_forked):
    def sources(names):
        described = [
            f"{name}: {{train: [{tmp_path / name}], validation: [{tmp_path / name}], weight: 1}}"
            for name in names
        ]
        return [
            *("data.train=[]", "data.validation=[]", "training.save_interval=2"),
            f"data.sources={{{', '.join(described)}}}",
        ]

    for number, name in enumerate("ab"):
        write(tmp_path / name, documents(40, 50, first=number))
    output = tmp_path / "run"
    pretrain_forked(1, *sources("ab"), output=output)
    expected = losses(output)
    rewind(output, 2)
    for path in tmp_path.glob("[ab].*"):
        os.utime(path)
    pretrain_forked(1, *sources("ba"), output=output)
    assert losses(output) == expected
