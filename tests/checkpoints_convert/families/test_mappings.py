import dataclasses

import pytest
import torch

from checkpoints_convert.conversion.weight_tasks import WeightConversionTask
from checkpoints_convert.families import llama, moe
from checkpoints_convert.families.mappings import GatedMLPMapping, QKVMapping, VocabMapping
from megatron_ext.config.architecture import Architecture
from tests.checkpoints_convert.in_memory import to_hf, to_megatron

SHAPE = Architecture(
    family="llama",
    num_layers=1,
    hidden_size=3,
    ffn_hidden_size=2,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=1,
    vocab_size=5,
    max_position_embeddings=8,
    rotary_base=1e4,
    layernorm_epsilon=1e-5,
    share_embeddings_and_output_weights=True,
)


def rows(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 3)


def test_query_key_value_rows_are_grouped():
    task = WeightConversionTask(
        QKVMapping("decoder.layers.self_attention.linear_qkv.weight", ("q", "k", "v")), 0
    )
    query, key, value = rows(0, 1, 2, 3), rows(10, 11), rows(20, 21)
    fused = to_megatron(task, [query, key, value], SHAPE)
    # group 0: its two queries, key, value; then group 1
    assert fused[:, 0].tolist() == [0, 1, 10, 20, 2, 3, 11, 21]
    assert torch.cat(to_hf(task, fused, SHAPE)).equal(torch.cat([query, key, value]))


def test_gate_stands_above_up():
    task = WeightConversionTask(
        GatedMLPMapping("decoder.layers.mlp.linear_fc1.weight", ("gate", "up")), 0
    )
    fused = to_megatron(task, [rows(0, 1), rows(5, 6)], SHAPE)
    assert fused[:, 0].tolist() == [0, 1, 5, 6]
    assert [part[:, 0].tolist() for part in to_hf(task, fused, SHAPE)] == [[0, 1], [5, 6]]


def test_vocabulary_is_padded_with_zeros_and_cut_again():
    task = WeightConversionTask(VocabMapping("embedding.word_embeddings.weight", ("e",)), None)
    padded = to_megatron(task, [rows(1, 2, 3, 4, 5)], SHAPE)
    assert padded.shape == (128, 3)
    assert padded[5:].abs().sum() == 0
    assert torch.cat(to_hf(task, padded, SHAPE)).equal(rows(1, 2, 3, 4, 5))


def test_a_family_with_two_mappings_of_a_tensor_is_refused():
    layer = (*llama.NORMS_BEFORE, *llama.ATTENTION, *moe.layer("mlp"))
    expected = r"the family medmoe has two mappings of .*post_attention_layernorm\.weight"
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(llama.FAMILY, name="medmoe", layer=layer)
