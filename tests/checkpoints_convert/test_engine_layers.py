"""Each dense family with Transformer Engine's layers, for which PyTorch stands in."""

import os
import subprocess
import sys

import pytest

from tests.checkpoints_convert.tiny_models import FAMILIES, UNREGISTERED

NAMES = [name for name, model in (FAMILIES | UNREGISTERED).items() if not model.same_function]


@pytest.fixture(scope="module")
def differences(checkpoints):
    """The difference of each family's logits from those of PyTorch's layers."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.checkpoints_convert.engine_side"),
            *(str(checkpoints[name]) for name in NAMES),
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr[-4000:]
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", NAMES)
def test_layers_of_transformer_engine_compute_the_same(differences, name):
    assert float(differences[name]) < 1e-5
