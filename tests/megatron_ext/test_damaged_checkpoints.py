"""A truncated or altered checkpoint is found on resume, and the one before it is used."""

import shutil

import pytest

from galen.iterations import LAST
from megatron_ext.checkpoint import checkpoint_folder
from tests.megatron_ext.kills import assert_same_losses, rewind

STEPS = [
    "training.train_iters=6",
    "training.save_interval=2",
    "training.keep_last=3",
    "training.eval_iters=0",
]


def cut(folder):
    path = next(folder.glob("__0_*.distcp"))
    path.write_bytes(path.read_bytes()[:-100])
    return f"{path} has "


def alter(folder):
    path = next(folder.glob("__1_*.distcp"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return f"{path} was altered"


def lose(folder):
    (folder / ".metadata").unlink()
    return f"{folder / '.metadata'} is missing"


@pytest.mark.multiprocess
def test_the_previous_checkpoint_is_used(tmp_path, pretrain_forked):
    undisturbed = pretrain_forked(2, *STEPS, output=tmp_path / "undisturbed")
    damaged = tmp_path / "damaged"
    shutil.copytree(undisturbed, damaged)
    rewind(damaged, 6)
    first, second = (damaged / "checkpoints" / f"iter_000000{step}" for step in (6, 4))
    messages = [cut(first), alter(second)]
    codes, written = pretrain_forked(2, *STEPS, f"output={damaged}", output=damaged, check=False)
    assert codes == [0, 0], written[-3000:]
    assert all(message in written for message in messages)
    assert "resuming from step 2" in written
    assert (damaged / "checkpoints/damaged_iter_0000006").is_dir()
    assert_same_losses(damaged, undisturbed)

    rewind(damaged, 6)
    for folder in list((damaged / "checkpoints").glob("damaged_*")):
        shutil.rmtree(folder)
    messages = [lose(folder) for folder in (damaged / "checkpoints").glob("iter_*")]
    codes, written = pretrain_forked(2, *STEPS, f"output={damaged}", output=damaged, check=False)
    assert codes == [1, 1] and "Traceback" not in written
    assert "all checkpoints in" in written and all(message in written for message in messages)


def complete(checkpoint, iteration):
    """Make an iteration that counts as complete."""
    folder = checkpoint_folder.iteration_folder(checkpoint, iteration)
    folder.mkdir()
    for name in LAST:
        (folder / name).touch()


def test_pruning(tmp_path):
    for iteration in range(10, 100, 10):
        complete(tmp_path, iteration)
    (tmp_path / ".iter_0000005.removed").mkdir()
    (tmp_path / "iter_saved").mkdir()  # someone else's
    checkpoint_folder.prune(tmp_path, keep_last=2, keep_every_n_steps=30)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        *(f"iter_00000{n}" for n in (30, 60, 80, 90)),
        "iter_saved",
    ]
    checkpoint_folder.prune(tmp_path, keep_last=1)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["iter_0000090", "iter_saved"]


def test_an_incomplete_iteration_is_not_kept_instead_of_a_good_one(tmp_path):
    for iteration in (2, 4, 6):
        complete(tmp_path, iteration)
    for iteration in (1, 5, 7):
        checkpoint_folder.iteration_folder(tmp_path, iteration).mkdir()
    checkpoint_folder.prune(tmp_path, keep_last=2)
    assert checkpoint_folder.iterations(tmp_path) == [4, 5, 6, 7]
    shutil.rmtree(tmp_path / "iter_0000004")
    shutil.rmtree(tmp_path / "iter_0000006")
    checkpoint_folder.prune(tmp_path, keep_last=1)
    assert checkpoint_folder.iterations(tmp_path) == [5, 7]  # none is good: none is removed


@pytest.mark.multiprocess
def test_a_run_without_its_pointer_resumes(tmp_path, pretrain_forked):
    """It would begin at step 0 and write over its checkpoints."""
    undisturbed = pretrain_forked(2, *STEPS, output=tmp_path / "undisturbed")
    lost = tmp_path / "lost"
    shutil.copytree(undisturbed, lost)
    rewind(lost, 4)
    (lost / "checkpoints" / checkpoint_folder.LATEST).unlink()
    codes, written = pretrain_forked(2, *STEPS, f"output={lost}", output=lost, check=False)
    assert codes == [0, 0], written[-3000:]
    assert written.count("using the newest complete iteration, 4") == 1
    assert "resuming from step 4" in written
    assert_same_losses(lost, undisturbed)


@pytest.mark.multiprocess
def test_altered_companions_are_not_trained_with(tmp_path, pretrain_forked, checkpoint):
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    given = [
        "training.train_iters=2",
        "optimizer.lr_warmup_iters=0",
        "training.eval_iters=0",
        f"model.checkpoint={model}",
    ]
    for path in (model / "hf" / "config.json", model / "hf" / "tokenizer.json"):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\n", b" ", 1))
        codes, written = pretrain_forked(2, *given, output=tmp_path / "refused", check=False)
        assert codes == [1, 1] and "Traceback" not in written
        assert (
            f"{path} was altered" in written and not (tmp_path / "refused" / "checkpoints").exists()
        )
        if path.name == "config.json":
            path.write_bytes(content)
    codes, written = pretrain_forked(
        2, *given, "model.verify_checksums=false", output=tmp_path / "taken", check=False
    )
    assert codes == [0, 0], written[-3000:]
    assert written.count(f"{model / 'hf'} is read without comparing it") == 1


@pytest.mark.multiprocess
def test_an_altered_model_is_not_trained_on(tmp_path, pretrain_forked, checkpoint):
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    path = model / "iter_0000000" / "__1_0.distcp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    given = [
        "training.train_iters=2",
        "optimizer.lr_warmup_iters=0",
        "training.eval_iters=0",
        f"model.checkpoint={model}",
    ]
    codes, written = pretrain_forked(2, *given, output=tmp_path / "refused", check=False)
    assert codes == [1, 1] and "Traceback" not in written
    assert (
        f"{path} was altered" in written
        and not (tmp_path / "refused" / "checkpoints" / checkpoint_folder.LATEST).exists()
    )
    codes, written = pretrain_forked(
        2, *given, "model.verify_checksums=false", output=tmp_path / "taken", check=False
    )
    assert codes == [0, 0], written[-3000:]
    assert (
        written.count(
            f"{model / 'iter_0000000'} is read without comparing it with the SHA-256 in its"
            " manifest"
        )
        == 1
    )
