"""Each family at each layout: the logits of transformers, and the training of one process.

All are computed by one set of processes (family_matrix.py); a failure names the family and layout.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.config.architecture import read_architecture
from tests.checkpoints_convert import tiny_models
from tests.checkpoints_convert.layouts import (
    BOUND,
    DOCUMENTS,
    LAYOUTS,
    PLAIN_LOSS,
    PROCESSES,
    SINGLE,
)
from tests.checkpoints_convert.tiny_models import FAMILIES, MOE, UNREGISTERED, Reference

pytestmark = pytest.mark.multiprocess

MODELS = FAMILIES | MOE | UNREGISTERED
STEPS = 10
SEQUENCES = 2
LENGTH = 48
"""Positions of a sequence: more than any tiny model's window."""
LOGITS_BOUND = 1e-5
"""Largest difference of a logit from transformers', relative to the largest logit of all."""
TRAINING_BOUND = 1e-6
"""Largest relative difference of a loss or gradient norm from that of one process."""


CASES = [(name, layout) for name in MODELS for layout in MODELS[name].layouts]


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    shape = (STEPS, SEQUENCES, LENGTH + 1)
    return torch.randint(300, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def selected(request) -> list[str]:
    """The models of the selected tests (`-k gemma`)."""
    tests = [item for item in request.session.items if item.path == request.path]
    return sorted({item.callspec.params["name"] for item in tests})


@pytest.fixture(scope="module")
def computed(tmp_path_factory, checkpoints, selected, tokens, megatron_side) -> Path:
    """The folder of the results."""
    folder = tmp_path_factory.mktemp("matrix")
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    models = {
        name: {
            "checkpoint": str(checkpoints[name]),
            # the auxiliary loss of experts depends on how a batch is divided
            "micro_batch_size": 1 if name in MOE else SEQUENCES,
            "layouts": MODELS[name].layouts,
        }
        for name in selected
    }
    (folder / "models.json").write_text(json.dumps(models))
    megatron_side(PROCESSES, "matrix", folder)
    return folder


@pytest.fixture(scope="module")
def references(models, selected, tokens) -> dict[str, Reference]:
    """The first global batch by the models' own code."""
    return {name: tiny_models.reference(models[name], tokens[0]) for name in selected}


def result(folder: Path, name: str, layout: str) -> dict:
    for file in sorted(folder.glob(f"{name}-{layout}.error-*.json")):
        pytest.fail(f"{name} at {layout}:\n{json.loads(file.read_text())['error'][-4000:]}")
    return json.loads((folder / f"{name}-{layout}.json").read_text())


def assert_close(actual: list[float], expected: list[float], bound: float) -> None:
    differences = [abs(a / b - 1) for a, b in zip(actual, expected, strict=True)]
    assert max(differences) < bound, differences


@pytest.mark.parametrize(
    ("name", "layout"), [case for case in CASES if LAYOUTS[case[1]].computes_logits]
)
def test_logits_are_those_of_transformers(computed, references, name, layout):
    result(computed, name, layout)
    expected = references[name].logits
    assert expected.std() > 0.5  # a model whose logits are all alike would prove nothing
    actual = load_file(computed / f"{name}-{layout}.safetensors")["logits"][..., :300]
    assert (actual - expected).abs().max() / expected.abs().max() < LOGITS_BOUND


def assert_first_step(actual: dict, expected: Reference) -> None:
    assert_close(actual["losses"][:1], [expected.loss], TRAINING_BOUND)
    if expected.grad_norm is not None:
        assert_close(actual["grad_norms"][:1], [expected.grad_norm], TRAINING_BOUND)


@pytest.mark.parametrize("name", MODELS)
def test_the_first_step_is_that_of_transformers(computed, references, name):
    layout = PLAIN_LOSS if name in MOE else SINGLE
    assert_first_step(result(computed, name, layout.name), references[name])


@pytest.mark.parametrize("name", [name for name, layout in CASES if layout == DOCUMENTS.name])
def test_documents_are_computed_alone(computed, models, references, tokens, name):
    expected = tiny_models.reference(models[name], tokens[0], BOUND)
    assert abs(expected.loss / references[name].loss - 1) > 100 * TRAINING_BOUND
    assert_first_step(result(computed, name, DOCUMENTS.name), expected)


@pytest.mark.parametrize(("name", "layout"), [case for case in CASES if LAYOUTS[case[1]].divided])
def test_training_is_that_of_one_process(computed, name, layout):
    expected = result(computed, name, SINGLE.name)
    actual = result(computed, name, layout)
    for figure in ("losses", "grad_norms"):
        assert_close(actual[figure], expected[figure], TRAINING_BOUND)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].same_function])
def test_a_model_at_one_layout_has_the_function_of_another(checkpoints, name):
    own, other = (
        dataclasses.asdict(read_architecture(checkpoints[one] / "iter_0000000"))
        for one in (name, MODELS[name].same_function)
    )
    differences = {field for field in own if own[field] != other[field]}
    assert differences <= {"family", "rotary_base"}
