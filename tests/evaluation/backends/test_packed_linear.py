"""Packed linear layers against PyTorch's own."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from evaluation.backends import packed_linear
from evaluation.backends.packed_linear import PackedLinear

pytestmark = pytest.mark.skipif(
    not packed_linear.is_available(), reason="PyTorch without oneDNN's operators"
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, 7), (2, 5, 9)])
def test_outputs_equal_those_of_the_layer(shape, bias):
    torch.manual_seed(0)
    linear = nn.Linear(48, 33, bias=bias)
    inputs = torch.randn(*shape, 48)
    with torch.inference_mode():
        torch.testing.assert_close(
            PackedLinear(linear)(inputs), linear(inputs), rtol=1e-5, atol=1e-5
        )


def test_all_layers_of_a_model_are_replaced_and_the_embedding_stays(tied_llama):
    model = AutoModelForCausalLM.from_pretrained(tied_llama).eval()
    tokens = torch.arange(2, 30)[None]
    with torch.inference_mode():
        expected = model(tokens).logits
        packed_linear.pack(model)
        actual = model(tokens).logits
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    assert not model.get_input_embeddings().weight.is_mkldnn
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_other_layers_and_recurrent_models_remain():
    class Adapted(nn.Linear):
        pass

    half = nn.Linear(4, 4, dtype=torch.bfloat16)
    model = nn.Sequential(Adapted(4, 4), half)
    packed_linear.pack(model)
    assert [type(module) for module in model] == [Adapted, nn.Linear]
    sizes = {"vocab_size": 30, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
    mamba = MambaForCausalLM(MambaConfig(**sizes))
    packed_linear.pack(mamba)
    assert not any(isinstance(module, PackedLinear) for module in mamba.modules())


def test_adapters_of_parameters_remain():
    class Wrapper(nn.Module):
        """The attributes of peft's ParamWrapper."""

        def __init__(self):
            super().__init__()
            self.parameter_name = "gate_up_proj"
            self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})

    wrapper = Wrapper()
    packed_linear.pack(nn.Sequential(wrapper))
    weights = wrapper.lora_B["default"].weight @ wrapper.lora_A["default"].weight
    assert weights.shape == (4, 4)
