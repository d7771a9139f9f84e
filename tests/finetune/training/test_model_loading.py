import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from evaluation.backends.transformers_backend import TransformersBackend
from finetune.config.recipe import Lora, Model
from finetune.training import model_loading
from galen.errors import UsageError
from tests.checkpoints_convert import tiny_models
from tests.finetune.conftest import MARKS


@pytest.fixture(params=["tied", "untied"])
def folder(request, make_llama):
    return make_llama(num_hidden_layers=1, tie_word_embeddings=request.param == "tied")


def test_new_tokens_get_rows_and_known_ones_keep_theirs(folder):
    model, tokenizer = model_loading.load(Model(path=str(folder)))
    before = model.get_input_embeddings().weight.detach().clone()
    assert model_loading.add_tokens(model, tokenizer, ["<|endoftext|>", *MARKS]) == [300, 301]
    assert model_loading.add_tokens(model, tokenizer, MARKS) == []
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert layer.weight.shape == (302, 64)
        torch.testing.assert_close(layer.weight[301], layer.weight[:300].mean(0))
    assert torch.equal(model.get_input_embeddings().weight[:300], before)
    assert tokenizer.encode("a<|im_start|>") == [*tokenizer.encode("a"), 300]


def test_a_padded_vocabulary_does_not_grow(make_llama):
    model, tokenizer = model_loading.load(
        Model(path=str(make_llama(num_hidden_layers=1, vocab_size=320)))
    )
    assert model_loading.add_tokens(model, tokenizer, MARKS) == [300, 301]
    assert model.get_input_embeddings().weight.shape[0] == 320
    torch.testing.assert_close(
        model.get_input_embeddings().weight[300], model.get_input_embeddings().weight[:300].mean(0)
    )


def train_a_little(model, tokens, steps=3):
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1
    )
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_rows_of_new_tokens_are_trained_and_no_others_and_all_of_it_loads_plainly(folder, tmp_path):
    model, tokenizer = model_loading.load(Model(path=str(folder)))
    new = model_loading.add_tokens(model, tokenizer, MARKS)
    start = model.get_input_embeddings().weight.detach().clone()
    adapted = model_loading.add_lora(model, Lora(r=2), new)
    tokens = torch.tensor([[300, 5, 6, 301, 7, 300, 301]])
    train_a_little(adapted, tokens)
    with torch.no_grad():
        wanted = adapted.eval()(tokens).logits
    model_loading.save(adapted, tokenizer, tmp_path / "adapter")
    # not the whole embedding
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 64 * 302 * 4
    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens).logits, wanted)
    backend = TransformersBackend(folder, tmp_path / "adapter")  # as evaluation/run.py --adapter
    assert backend.tokenizer.convert_tokens_to_ids(MARKS) == new
    with torch.no_grad():
        torch.testing.assert_close(backend.runner.model(tokens).logits, wanted)
    model_loading.merge(
        Model(path=str(folder)), tmp_path / "adapter", tmp_path / "merged", model.generation_config
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, wanted, atol=1e-4, rtol=0)
    for layer in (merged.get_input_embeddings(), merged.get_output_embeddings()):
        assert (layer.weight[300:] - layer.weight[:300].mean(0)).abs().max() > 1e-3
    assert torch.equal(merged.get_input_embeddings().weight[:300], start[:300])
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").convert_tokens_to_ids(MARKS) == new


def test_without_new_tokens_no_row_is_trained(folder, tmp_path):
    model, tokenizer = model_loading.load(Model(path=str(folder)))
    adapted = model_loading.add_lora(
        model, Lora(r=2), model_loading.add_tokens(model, tokenizer, ["<|endoftext|>"])
    )
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name for name in names)
    model_loading.save(adapted, tokenizer, tmp_path / "adapter")
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())[
            "trainable_token_indices"
        ]
        is None
    )


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_quantized_weights_stay_and_the_adapter_learns(tiny_llama, kind, tmp_path):
    """The loss falls, linear layers stay bytes, and the adapter merges into unquantized weights."""
    pytest.importorskip("bitsandbytes")
    options = Model(path=str(tiny_llama), quantization=kind)
    model, tokenizer = model_loading.load(options)
    adapted = model_loading.add_lora(model, Lora(r=4, alpha=8))
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj.base_layer
    stored = layer.weight.detach().clone()
    assert stored.dtype in (torch.uint8, torch.int8)
    tokens = torch.tensor([[9, 5, 6, 8, 7, 10, 11, 12]])
    with torch.no_grad():
        before = adapted(input_ids=tokens, labels=tokens).loss
    train_a_little(adapted, tokens, steps=20)
    with torch.no_grad():
        assert adapted(input_ids=tokens, labels=tokens).loss < 0.8 * before
    assert torch.equal(layer.weight, stored)
    model_loading.save(adapted, tokenizer, tmp_path / "adapter")
    model_loading.merge(options, tmp_path / "adapter", tmp_path / "merged", model.generation_config)
    base = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "adapter"
    ).eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, base(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("apertus", {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}),
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    ],
)
def test_the_default_adapter_is_on_all_linear_layers_of_a_family(model_type, expected):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = AutoConfig.for_model(
        model_type,
        vocab_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        pad_token_id=0,
        **sizes,
    )
    model = AutoModelForCausalLM.from_config(config)
    adapted = model_loading.add_lora(model, Lora(r=2))
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained} == expected


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("llama-2", "experts.down_proj", "no stacked experts; remove it"),
        ("mixtral", "experts.w2", "'experts.w2'; it has experts.gate_up_proj, experts.down_proj"),
    ],
)
def test_adapters_of_missing_experts_are_refused(
    tmp_path, tiny_tokenizer, name, parameter, message
):
    tiny_models.make(tmp_path, name, tiny_tokenizer)
    model, _ = model_loading.load(Model(path=str(tmp_path)))
    with pytest.raises(UsageError, match=message):
        model_loading.add_lora(model, Lora(target_parameters=[parameter]))


def test_experts_without_an_adapter_are_reported(tmp_path, tiny_tokenizer, caplog):
    caplog.set_level("INFO")
    tiny_models.make(tmp_path, "mixtral", tiny_tokenizer)
    model, _ = model_loading.load(Model(path=str(tmp_path)))
    adapted = model_loading.add_lora(model, Lora())
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained and all(".self_attn." in name for name in trained)
    expected = "lora.target_parameters=[experts.gate_up_proj,experts.down_proj] gives them one"
    assert expected in caplog.text


def test_mxfp4_is_decoded_for_training_and_not_quantized_again(tmp_path):
    config = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = model_loading.decoded(tmp_path, None)
    assert options["quantization_config"].dequantize
    with pytest.raises(UsageError, match=r"model\.quantization: 4bit needs weights that are not"):
        model_loading.decoded(tmp_path, "4bit")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    assert model_loading.decoded(tmp_path, "4bit") == {}
