"""Any file that fine-tuning reads, damaged or removed: it trains, or one line says why not."""

import shutil
import time

import pytest

from finetune import train
from tests.damage import check_one_line, damages, ended

RECIPE = """
model: {{path: {folder}/model}}
data: {{train: {folder}/train.jsonl, max_length: 160}}
lora: {{r: 2, alpha: 4}}
optimizer: {{lr: 0.02}}
training: {{train_iters: 2, micro_batch_size: 4, save_interval: 1}}
output: {folder}/run
"""


@pytest.fixture
def folder(tmp_path, tiny_llama, question_file):
    """What a run reads, and a run that was killed after the first of two steps."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    shutil.copy(question_file, tmp_path / "train.jsonl")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    train.main([str(tmp_path / "recipe.yaml")])
    (tmp_path / "run" / "manifest.json").unlink()
    for name in ("adapter", "checkpoints/checkpoint-2"):
        shutil.rmtree(tmp_path / "run" / name)
    return tmp_path


def check(folder, what, capsys):
    """Train into `new`, and remove it."""
    began = time.monotonic()
    code, _, err = ended(train.main, [folder / "recipe.yaml", f"output={folder / 'new'}"], capsys)
    check_one_line(code, err, what)
    assert time.monotonic() - began < 60, what
    shutil.rmtree(folder / "new", ignore_errors=True)


def test_model_and_data(folder, capsys):
    names = ["train.jsonl", *sorted(f"model/{path.name}" for path in (folder / "model").iterdir())]
    for what in damages(folder, names):
        check(folder, what, capsys)


@pytest.mark.slow
def test_a_run_that_goes_on(folder, capsys):
    names = sorted(
        str(path.relative_to(folder)) for path in (folder / "run").rglob("*") if path.is_file()
    )
    for what in damages(folder, names):
        shutil.copytree(folder / "run", folder / "new")
        check(folder, what, capsys)
