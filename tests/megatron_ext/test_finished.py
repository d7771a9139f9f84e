"""The folder of a run that is finished."""

import re
import shutil

import pytest

from galen import manifest
from galen.errors import UsageError
from megatron_ext import plan
from tests.megatron_ext.conftest import goodput, log, losses


@pytest.mark.multiprocess
def test_a_finished_run_is_skipped_or_refused_to_another(pretrain_forked, alone):
    output = alone
    for record in manifest.read(output, "pretrain")["outputs"]:
        assert manifest.sha256(output / record["path"]) == record["sha256"]
    found = goodput(output)
    assert [start.cause for start in found.starts] == ["finished"]
    assert found.starts[0].saves == 1 and found.lost_steps == 0
    used = ("training", "startup", "data_wait", "checkpoint", "validation")
    assert min(found.parts[part] for part in used) > 0
    stalls = [record["checkpoint_stall"] for record in log(output, "checkpoint")]
    assert 0.9 * found.parts["checkpoint"] <= sum(stalls) <= found.parts["checkpoint"] + 0.001
    device = found.starts[0].device
    assert device
    with pytest.raises(UsageError, match=re.escape(f"the run's device is {device}; the plan")):
        plan.main([str(output / "recipe.yaml"), "--compare", str(output)])
    names = ("log.jsonl", "goodput.jsonl")
    before = [(output / name).read_bytes() for name in names]
    codes, written = pretrain_forked(1, output=output, check=False)
    assert codes == [0] and "already complete" in written
    assert [(output / name).read_bytes() for name in names] == before
    codes, written = pretrain_forked(1, "optimizer.lr=0.5", output=output, check=False)
    assert codes == [2]
    assert "optimizer.lr: 0.001 → 0.5" in written and "moved" not in written


@pytest.mark.multiprocess
def test_a_run_resumes_with_moved_data_once_its_recipe_is_edited(
    pretrain_forked, alone, data, tmp_path
):
    output = tmp_path / "out"
    codes, written = pretrain_forked(
        1, "resilience.exit_duration_in_mins=0.0001", output=output, check=False
    )
    assert codes == [75], written
    moved = shutil.copytree(data, tmp_path / "moved")
    moved_paths = [
        f"data.{split}=[{moved}/{split}_text_document]" for split in ("train", "validation")
    ]
    codes, written = pretrain_forked(1, *moved_paths, output=output, check=False)
    recipe = output / "recipe.yaml"
    advice = f"if the files have only moved, write their new paths into {recipe}"
    assert codes == [2]
    assert advice in written
    recipe.write_text(recipe.read_text().replace(str(data), str(moved)))
    pretrain_forked(1, *moved_paths, output=output)
    assert losses(output) == losses(alone)
