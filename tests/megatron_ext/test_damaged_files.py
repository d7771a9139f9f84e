"""With any file damaged, a command works or reports it in one line.

The files are those that planning, monitoring, restarting or training reads.
"""

import random
import re
import shutil

import pytest

from megatron_ext import monitor, plan, restart
from tests.damage import MUTATIONS, check_one_line, damages, ended, mutate
from tests.megatron_ext.conftest import RECIPE


@pytest.fixture
def run_folder(alone, tmp_path):
    """A copy of the run, as if it had stopped early."""
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    (folder / "manifest.json").unlink()
    (folder / "stopped.json").write_text(
        '{"reason": "trigger file", "iteration": 4, "exit_code": 75}\n'
    )
    (folder / "restarts.json").write_text('{"iteration": 4, "restarts_without_progress": 0}\n')
    return folder


def each_damaged(folder, names):
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
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.format(output=tmp_path / "run", checkpoint=tmp_path / "model", data=data)
    )
    names = (
        "recipe.yaml",
        "model/latest_checkpointed_iteration.txt",
        "model/iter_0000000/architecture.json",
        "model/iter_0000000/manifest.json",
    )
    for what in each_damaged(tmp_path, names):
        code, _, err = ended(
            plan.main, [tmp_path / "recipe.yaml", "--gpus", 1, "--best", 1], capsys
        )
        check_one_line(code, err, what)


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "log.jsonl",
        "goodput.jsonl",
        "stopped.json",
        "checkpoints/latest_checkpointed_iteration.txt",
    ],
)
def test_monitor(run_folder, name, tmp_path, capsys):
    for what in each_damaged(run_folder, [name]):
        code, _, err = ended(monitor.main, [run_folder], capsys)
        check_one_line(code, err, what)


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "restarts.json",
        "stopped.json",
        "checkpoints/latest_checkpointed_iteration.txt",
    ],
)
def test_restart(run_folder, name, capsys):
    (run_folder / "recipe.yaml").write_text(
        re.sub(
            r"(?m)^output:.*$", f"output: {run_folder}", (run_folder / "recipe.yaml").read_text()
        )
    )
    for exit_code in (1, 75):
        for what in each_damaged(run_folder, [name]):
            code, _, err = ended(
                restart.main, [run_folder / "recipe.yaml", "--exit-code", exit_code], capsys
            )
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
def test_pretrain_resumes_or_reports_why_not(run_folder, pretrain_forked, name, tmp_path):
    """The checkpoint has no manifest, as another program may have written it.

    Nothing is compared before it is read.
    """
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


@pytest.mark.multiprocess
@pytest.mark.parametrize("sealed", [False, True], ids=["without manifests", "with manifests"])
def test_pretrain_starts_or_reports_why_not(checkpoint, data, pretrain_forked, tmp_path, sealed):
    """From a checkpoint and what lies beside it, of which any file is damaged or removed."""
    model, output = tmp_path / "model", tmp_path / "run"
    shutil.copytree(checkpoint, model)
    if not sealed:
        for path in model.rglob("manifest.json"):
            path.unlink()
    names = sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())
    given = [
        "training.train_iters=1",
        "training.eval_iters=0",
        "optimizer.lr_warmup_iters=0",
        f"model.checkpoint={model}",
    ]
    for what in damages(model, names, MUTATIONS):
        codes, written = pretrain_forked(1, *given, output=output, check=False)
        assert "Traceback" not in written, (what, written)
        if codes[0]:
            assert codes[0] in (1, 2) and written.count("error: ") == 1, (what, written)
        shutil.rmtree(output)
