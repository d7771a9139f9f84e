import pytest

from finetune.quantization import awq_mappings


def test_the_mlp_without_a_gate_is_not_scaled_across_its_activation():
    mappings = awq_mappings.find("ApertusForCausalLM", {})
    assert "re:.*up_proj$" not in [scaled for scaled, _ in mappings]


def test_llmcompressors_own_mappings_are_used_where_it_has_some():
    assert awq_mappings.find("LlamaForCausalLM", {"LlamaForCausalLM"}) is None


def test_the_layers_of_a_llama_are_not_assumed():
    with pytest.raises(ValueError, match="no mappings are known for NovelForCausalLM"):
        awq_mappings.find("NovelForCausalLM", {"LlamaForCausalLM"})
