"""Any file that planning, watching, restarting or training reads, damaged: the command works, or says so in one line."""

import random
import re
import shutil

import pytest

from megatron_ext import monitor, plan, restart
from tests.damage import MUTATIONS, check_one_line, ended, mutate
from tests.megatron_ext.conftest import RECIPE


@pytest.fixture
def run_folder(alone, tmp_path):
    """A copy of the run, as if it had stopped early."""
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    (folder / "manifest.json").unlink()
    (folder / "stopped.json").write_text('{"reason": "trigger file", "iteration": 4, "exit_code": 75}\n')
    (folder / "restarts.json").write_text('{"iteration": 4, "in_vain": 0}\n')
    return folder


def damages(folder, names):
    """Damage each file in turn, and put it right again; yield what was done."""
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for number in range(MUTATIONS):
            kind = mutate(path, random.Random(f"{name} {number}"))
            yield f"{name} {number} {kind}"
            path.write_bytes(content)


def test_plan(checkpoint, data, tmp_path, capsys):
    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(output=tmp_path / "run", checkpoint=tmp_path / "model", data=data))
    names = (
        "recipe.yaml",
        "model/latest_checkpointed_iteration.txt",
        "model/iter_0000000/architecture.json",
        "model/iter_0000000/manifest.json",
    )
    for what in damages(tmp_path, names):
        code, _, err = ended(plan.main, [tmp_path / "recipe.yaml", "--gpus", 1, "--best", 1], capsys)
        check_one_line(code, err, what)


@pytest.mark.parametrize("name", ["recipe.yaml", "log.jsonl", "stopped.json", "checkpoints/latest_checkpointed_iteration.txt"])
def test_monitor(run_folder, name, tmp_path, capsys):
    for what in damages(run_folder, [name]):
        code, _, err = ended(monitor.main, [run_folder], capsys)
        check_one_line(code, err, what)


@pytest.mark.parametrize("name", ["recipe.yaml", "restarts.json", "stopped.json", "checkpoints/latest_checkpointed_iteration.txt"])
def test_restart(run_folder, name, capsys):
    (run_folder / "recipe.yaml").write_text(re.sub(r"(?m)^output:.*$", f"output: {run_folder}", (run_folder / "recipe.yaml").read_text()))
    for exit_code in (1, 75):
        for what in damages(run_folder, [name]):
            code, _, err = ended(restart.main, [run_folder / "recipe.yaml", "--exit-code", exit_code], capsys)
            if code != restart.STOP:
                check_one_line(code, err, what)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "name",
    [
        "log.jsonl",
        "stopped.json",
        "recipe.yaml",
        "checkpoints/latest_checkpointed_iteration.txt",
        "checkpoints/iter_0000004/training_state.json",
        "checkpoints/iter_0000004/common.pt",
        "checkpoints/iter_0000004/.metadata",
        "checkpoints/iter_0000004/__0_0.distcp",
    ],
)
def test_pretrain_goes_on_or_says_why_not(run_folder, pretrain_forked, name, tmp_path):
    """The checkpoint has no manifest, as another program may have written it: nothing is compared before it is read."""
    (run_folder / "checkpoints" / "iter_0000004" / "manifest.json").unlink()
    for number in range(MUTATIONS):
        output = tmp_path / str(number)
        shutil.copytree(run_folder, output)
        what = f"{name} {number}"
        what += mutate(output / name, random.Random(what))
        codes, written = pretrain_forked(1, output=output, check=False)
        assert "Traceback" not in written, (what, written)
        if codes[0]:
            assert codes[0] in (1, 2) and written.count("error: ") == 1, (what, written)
