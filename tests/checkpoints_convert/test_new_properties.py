"""A family with another activation or norm placement needs its own file and nothing else.

Conversion, Megatron's model, planner and interop formats follow from Architecture.
"""

import math

import pytest
import yaml
from safetensors.torch import load_file

from checkpoints_convert import families, hf_to_megatron, megatron_to_hf, megatron_to_nemo
from checkpoints_convert.conversion import bridge_config, megatron_lm_args
from checkpoints_convert.conversion.interop_target import InteropTarget
from checkpoints_convert.conversion.weight_tasks import all_tasks
from checkpoints_convert.families.mappings import ConstantMapping, hf_shapes
from checkpoints_convert.interop import nemo_config
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import properties, read_architecture
from tests.checkpoints_convert import tiny_models
from tests.checkpoints_convert.tiny_models import FAMILIES, UNREGISTERED

NEW = sorted(UNREGISTERED)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        tiny_models.register(patch)
        yield


def iteration(checkpoint):
    return checkpoint / "iter_0000000"


@pytest.mark.parametrize("name", NEW)
def test_round_trip_is_bit_identical(tmp_path, models, checkpoints, name):
    output = tmp_path / "exported"
    megatron_to_hf.main(["--megatron", str(checkpoints[name]), "--output", str(output)])
    expected = load_file(models[name] / "model.safetensors")
    actual = load_file(output / "model.safetensors")
    assert actual.keys() == expected.keys()
    assert all(actual[key].equal(tensor) for key, tensor in expected.items())
    architecture = read_architecture(iteration(checkpoints[name]))
    family = families.FAMILIES[name]
    assert family.architecture(family.config(architecture)) == architecture


@pytest.mark.parametrize("name", [*FAMILIES, *NEW])
def test_parameters_follow_from_the_architecture(models, name):
    """The planner's number of weights is that of the tensors that the family declares."""
    family, architecture = families.find(models[name] / "config.json")
    sizes = [
        math.prod(size)
        for task in all_tasks(family, architecture)
        if not isinstance(task.mapping, ConstantMapping)
        for size in hf_shapes(task.mapping, architecture)
    ]
    assert sum(sizes) == architecture.parameters


def test_an_ungated_squared_relu_is_expressed(tmp_path, checkpoints):
    folder = iteration(checkpoints["arcee"])
    model = yaml.safe_load((folder / bridge_config.NAME).read_text())["model"]
    assert model["gated_linear_unit"] is False
    assert model["activation_func"]["_target_"] == "megatron.core.activations.squared_relu"
    arguments = TorchDist(folder).common()["args"]
    assert (arguments.swiglu, arguments.squared_relu) == (False, True)
    with pytest.raises(DataError, match="arcee models are not supported as checkpoints of NeMo"):
        megatron_to_nemo.main(
            ["--megatron", str(checkpoints["arcee"]), "--output", str(tmp_path / "nemo")]
        )


def test_norms_after_are_refused_by_name(tmp_path, models, checkpoints, caplog):
    hf_to_megatron.main(["--hf", str(models["exaone4"]), "--output", str(tmp_path / "again")])
    for target in (bridge_config.TARGET, megatron_lm_args.TARGET):
        assert f"{target.name} cannot express norm_placement = 'after'" in caplog.text
    folder = iteration(checkpoints["exaone4"])
    assert not (folder / bridge_config.NAME).exists()
    assert "args" not in TorchDist(folder).common()
    with pytest.raises(DataError, match="NeMo cannot express norm_placement = 'after'"):
        nemo_config.TARGET.check(read_architecture(folder))
    with pytest.raises(DataError, match="norm_placement is 'before' instead of 'after'"):
        megatron_to_hf.main(
            [
                *("--megatron", str(checkpoints["exaone4"])),
                *("--output", str(tmp_path / "llama"), "--as-family", "qwen3"),
            ]
        )


def test_a_target_refuses_every_property_that_it_does_not_declare(checkpoints):
    architecture = read_architecture(iteration(checkpoints["arcee"]))
    target = InteropTarget("Other", {})
    expected = "Other cannot express activation = 'relu2', gated_mlp = False of this arcee model"
    with pytest.raises(DataError, match=expected):
        target.check(architecture)
    for known in (bridge_config.TARGET, megatron_lm_args.TARGET, nemo_config.TARGET):
        assert set(known.supports) <= set(properties())
