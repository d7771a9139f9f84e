import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.data.batch import collate, collate_packed, loss_sum, pack
from finetune.data.sample import BLANK, IGNORE_INDEX, Sample

SAMPLES = [
    Sample.of([5, 6, 7, 8, 9], [10, 11]),
    Sample.of([12, 13], [14]),
    Sample.of([15, 16, 17], [18, 19, 20]),
]


def test_rows_end_together_and_only_answers_are_labelled():
    batch = collate(SAMPLES)
    assert batch["input_ids"].tolist() == [
        [5, 6, 7, 8, 9, 10, 11],
        [0, 0, 0, 0, 12, 13, 14],
        [0, 15, 16, 17, 18, 19, 20],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [7, 3, 6]
    assert batch["position_ids"][1].tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert batch["logits_to_keep"] == 4
    i = IGNORE_INDEX
    assert batch["labels"].tolist() == [[i, i, 10, 11], [i, i, i, 14], [i, 18, 19, 20]]


def test_the_loss_equals_that_of_single_unpadded_samples(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    batch = collate(SAMPLES)
    labels = batch.pop("labels")
    expected = 0.0
    with torch.no_grad():
        for sample in SAMPLES:
            logits = model(torch.tensor([sample.tokens])).logits[0].log_softmax(-1)
            expected -= sum(
                logits[n - 1, label].item()
                for n, label in enumerate(sample.labels)
                if label != IGNORE_INDEX
            )
        found = loss_sum(model(**batch).logits, labels).item()
    assert found == pytest.approx(expected, abs=1e-4)


FAMILIES = {
    "gemma3_text": {
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
        "head_dim": 8,
        "query_pre_attn_scalar": 6,
    },
    "llama": {},
    "qwen2": {},
    "mistral": {"sliding_window": 6},
    "olmo3": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_samples_have_the_loss_they_have_alone(family, attention):
    config = AutoConfig.for_model(
        family,
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        **FAMILIES[family],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    samples = [*SAMPLES, Sample.of([3, 4, 5, 6, 7, 8, 9, 10, 11], [12, 13])]
    rows = pack(samples, 13)
    with torch.no_grad():
        losses = []
        for made in (*(collate([sample]) for sample in samples), collate_packed(rows)):
            labels = made.pop("labels")
            losses.append(loss_sum(model(**made).logits, labels).item())
    assert losses[-1] == pytest.approx(sum(losses[:-1]), rel=1e-5)
    assert [len(row) for row in rows] == [1, 2, 1]  # alone, two together, and filled up


def test_rows_hold_each_sample_once_and_are_never_too_long():
    samples = [Sample.of([1] * (1 + n * 7 % 29), [2]) for n in range(200)]
    rows = pack(samples, 64)
    assert all(sum(map(len, row)) <= 64 for row in rows)
    assert sorted(map(id, (sample for row in rows for sample in row))) == sorted(map(id, samples))
    assert len(rows) <= 1.05 * sum(map(len, samples)) / 64 + 1


def test_blank_rows_have_no_part_in_the_loss():
    alone, filled = collate(SAMPLES), collate([*SAMPLES, BLANK])
    assert filled["labels"][:3].tolist() == alone["labels"].tolist()
    assert set(filled["labels"][3].tolist()) == {IGNORE_INDEX}
    assert set(collate_packed([[BLANK]])["labels"].flatten().tolist()) == {IGNORE_INDEX}
