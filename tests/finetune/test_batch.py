import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.batch import collate, loss_sum
from finetune.sample import IGNORED, Sample

SAMPLES = [Sample([5, 6, 7, 8, 9], [10, 11]), Sample([12, 13], [14]), Sample([15, 16, 17], [18, 19, 20])]


def test_rows_end_together_and_only_answers_are_labelled():
    batch = collate(SAMPLES)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11], [0, 0, 0, 0, 12, 13, 14], [0, 15, 16, 17, 18, 19, 20]]
    assert batch["attention_mask"].sum(1).tolist() == [7, 3, 6]
    assert batch["position_ids"][1].tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert batch["logits_to_keep"] == 4
    i = IGNORED
    assert batch["labels"].tolist() == [[i, i, 10, 11], [i, i, i, 14], [i, 18, 19, 20]]


def test_the_loss_equals_that_of_single_unpadded_samples(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    batch = collate(SAMPLES)
    labels = batch.pop("labels")
    expected = 0.0
    with torch.no_grad():
        for sample in SAMPLES:
            logits = model(torch.tensor([sample.prompt + sample.answer])).logits[0].log_softmax(-1)
            expected -= sum(logits[len(sample.prompt) + n - 1, token].item() for n, token in enumerate(sample.answer))
        found = loss_sum(model(**batch).logits, labels).item()
    assert found == pytest.approx(expected, abs=1e-4)
