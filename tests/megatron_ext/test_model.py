"""The Megatron model computes what the Hugging Face model computes."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import run

CONFIGS = {
    "tied, grouped heads": {},
    "untied, rotary base": {"tie_word_embeddings": False, "rope_theta": 500000.0},
    "all heads, head size, llama3 scaling": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_losses_equal_hugging_faces(tmp_path, make_llama, name):
    hf = make_llama(**CONFIGS[name])
    run("checkpoints_convert/hf_to_megatron.py", "--hf", hf, "--output", tmp_path / "megatron")
    tokens = torch.randint(300, (2, 100), generator=torch.Generator().manual_seed(1))
    torch.save(tokens, tmp_path / "tokens.pt")
    run("-m", "tests.megatron_ext.print_logits", tmp_path / "megatron", tmp_path / "tokens.pt", tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(hf)(tokens).logits
    assert expected.std() > 0.5  # a model whose logits are all alike would prove nothing
    torch.testing.assert_close(found["logits"][..., :300], expected, rtol=1e-5, atol=1e-5)
    losses = torch.nn.functional.cross_entropy(expected.transpose(1, 2), tokens.roll(-1, 1), reduction="none")
    torch.testing.assert_close(found["losses"], losses, rtol=1e-5, atol=1e-5)  # the 84 padded ids take no probability
