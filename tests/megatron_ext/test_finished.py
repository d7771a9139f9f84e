"""The folder of a run that is finished."""

import pytest

from galen import manifest


@pytest.mark.multiprocess
def test_started_again_or_as_another_run(pretrain_forked):
    output = pretrain_forked(1)
    for record in manifest.read(output, "pretrain")["outputs"]:
        assert manifest.sha256(output / record["path"]) == record["sha256"]
    before = (output / "log.jsonl").read_bytes()
    codes, written = pretrain_forked(1, output=output, check=False)
    assert codes == [0] and "finished already" in written
    assert (output / "log.jsonl").read_bytes() == before
    codes, written = pretrain_forked(1, "optimizer.lr=0.5", output=output, check=False)
    assert codes == [2]
    assert "optimizer.lr: 0.001 there, 0.5 now" in written
