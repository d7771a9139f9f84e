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


SAME_LAYERS = ["llama-3.2", "qwen3", "qwen3-moe"]
"""Models whose layers are Megatron Core's own in Megatron-Bridge."""


@pytest.fixture(scope="module")
def python():
    name = os.environ.get("GALEN_BRIDGE_PYTHON")
    if not name:
        pytest.skip("GALEN_BRIDGE_PYTHON does not name the Python of one with Megatron-Bridge")
    return name


@pytest.fixture(scope="module")
def folders(python, make_model, tmp_path_factory):
    root = tmp_path_factory.mktemp("bridge")
    for name in MODELS:
        (root / name).mkdir()
        (root / name / "hf").symlink_to(make_model(name))
    return root


def run(python, module, folders):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(
        [python, "-m", f"tests.checkpoints_convert.{module}", *map(str, folders)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_tensors_are_those_of_megatron_bridge(python, folders):
    for name in MODELS:
        options = ["--hf", str(folders / name / "hf"), "--output", str(folders / name / "megatron")]
        hf_to_megatron.main(options)
    output = run(python, "bridge_side", [folders / name for name in MODELS])
    assert output.count(" tensors, 0 differences") == len(MODELS)


def test_its_models_have_the_logits_of_transformers(python, folders):
    output = run(python, "bridge_logits", [folders / name for name in SAME_LAYERS])
    assert output.count("largest relative difference") == len(SAME_LAYERS)
