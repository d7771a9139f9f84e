"""Tensors of Galen's imports, compared with what Megatron-Bridge makes of the same models.

Megatron-Bridge needs an environment of its own (docs/checkpoints.md); GALEN_BRIDGE_PYTHON names its
Python.
"""

import os
import subprocess
from pathlib import Path

import pytest

from checkpoints_convert import hf_to_megatron

MODELS = [
    "llama-2",
    "llama-3.2",
    "mistral-v0.1",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "olmoe",
    "gpt-oss",
    "gemma3",
]


def test_tensors_are_those_of_megatron_bridge(tmp_path, make_model):
    python = os.environ.get("GALEN_BRIDGE_PYTHON")
    if not python:
        pytest.skip("GALEN_BRIDGE_PYTHON does not name the Python of one with Megatron-Bridge")
    for name in MODELS:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "hf").symlink_to(make_model(name))
        options = ["--hf", str(folder / "hf"), "--output", str(folder / "megatron")]
        hf_to_megatron.main(options)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [python, "-m", "tests.checkpoints_convert.bridge_side", *map(str, tmp_path.iterdir())],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" tensors, 0 differences") == len(MODELS)
