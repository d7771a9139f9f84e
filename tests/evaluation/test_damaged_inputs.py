"""Scoring with any input file damaged or removed: a result, or one line with the reason."""

import shutil
import time

import torch

from evaluation import run
from evaluation.tasks import task
from tests.damage import check_one_line, damages, ended


def test_one_line_or_scores(tmp_path, tiny_llama, data, capsys):
    torch.set_num_threads(1)
    shutil.copytree(tiny_llama, tmp_path / "model")
    shutil.copy(task.BUILT_IN / "mesh_topics.yaml", tmp_path / "mine.yaml")
    output = tmp_path / "scores"
    arguments = [
        "--model",
        tmp_path / "model",
        "--tasks",
        f"{tmp_path / 'mine.yaml'},pubmed_perplexity",
    ]
    arguments += ["--data", data, "--output", output, "--device", "cpu"]
    names = sorted(f"model/{path.name}" for path in (tmp_path / "model").iterdir())
    names += ["mine.yaml", "data/questions/test.jsonl", "data/corpus/test/00000.jsonl"]
    for what in damages(tmp_path, names):
        began = time.monotonic()
        code, _, err = ended(run.main, arguments, capsys)
        check_one_line(code, err, what)
        assert time.monotonic() - began < 60, what
        shutil.rmtree(output, ignore_errors=True)
