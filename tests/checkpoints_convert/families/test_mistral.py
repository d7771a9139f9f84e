"""The text model of a multimodal folder of Mistral."""

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
)

from checkpoints_convert import hf_to_megatron, megatron_to_hf, verify
from tests.checkpoints_convert.tiny_models import TINY


def multimodal(folder):
    text = AutoConfig.for_model("mistral", **(TINY | {"num_hidden_layers": 1, "head_dim": 32}))
    vision = AutoConfig.for_model(
        "pixtral",
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    config = Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    torch.manual_seed(0)
    Mistral3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_the_exported_text_model_has_the_logits_of_the_multimodal_one(tmp_path):
    hf = multimodal(tmp_path / "hf")
    hf_to_megatron.main(["--hf", str(hf), "--output", str(tmp_path / "megatron")])
    back = tmp_path / "back"
    megatron_to_hf.main(["--megatron", str(tmp_path / "megatron"), "--output", str(back)])
    tokens = torch.arange(20)[None]
    expected = verify.reference_logits(hf, tokens, "fp32")
    with torch.no_grad():
        assert AutoModelForCausalLM.from_pretrained(back)(tokens).logits.equal(expected)
    assert verify.compare_weights(hf, tmp_path / "megatron", None)
