import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from evaluation.backends import model_folder, model_loading
from galen.errors import DataError


@pytest.fixture
def copy(tied_llama, tmp_path):
    return shutil.copytree(tied_llama, tmp_path / "copy")


@pytest.mark.parametrize("change", [None, torch.zeros(3, 5)])
def test_weights_that_are_missing_or_of_another_shape_are_not_made_up(copy, change):
    weights, name = load_file(copy / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    del weights[name]
    save_file(
        weights | ({} if change is None else {name: change}),
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(DataError, match=rf"lack 1 of the weights .* for example {name}"):
        model_loading.load_model(copy)


def test_a_truncated_file_is_reported(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"copy cannot be loaded: .*not fully covered"):
        model_loading.load_model(copy)


def test_an_adapter_of_a_shallower_model_is_reported(make_llama, tied_llama, tmp_path):
    shallow, _ = model_loading.load_model(make_llama(num_hidden_layers=2))
    get_peft_model(shallow, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(
        DataError, match=r"adapter cannot be loaded on .*missing adapter keys.*layers\.2"
    ):
        model_loading.with_adapter(*model_loading.load_model(tied_llama), tmp_path / "adapter")


def test_the_tokens_that_end_an_answer_are_part_of_the_model(copy):
    before = model_folder.hashes(copy)
    (copy / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    after = model_folder.hashes(copy)
    assert [name for name in after if after[name] != before.get(name)] == ["generation_config.json"]
