"""A tiny random Llama, and questions that can be learned: the answer is always the option named in the context."""

import json
import random

import pytest


@pytest.fixture(scope="session")
def tiny_llama(make_llama):
    return make_llama(num_hidden_layers=2, max_position_embeddings=256, initializer_range=0.2)


@pytest.fixture(scope="session")
def question_file(tmp_path_factory):
    """40 questions as JSONL."""
    names, rng = ["Aspirin", "Heparin", "Insulin", "Sodium"], random.Random(3)
    path = tmp_path_factory.mktemp("questions") / "train.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(40):
            options = dict(zip("ABCD", rng.sample(names, 4), strict=True))
            answer = "AB"[number % 2]
            record = {
                "id": f"q{number}",
                "context": f"{number} adults took {options[answer]}." + " They were followed for years." * (number % 3),
                "question": "What was taken?",
                "options": options,
                "answer": answer,
                "pmid": str(number),
            }
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def recipe_file(tmp_path, tiny_llama, question_file):
    """A recipe of 12 steps, two micro-batches each, with dropout."""
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
model: {{path: {tiny_llama}}}
data: {{train: {question_file}, validation_share: 0.2, max_length: 160}}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
training:
  {{learning_rate: 0.02, max_steps: 12, micro_batch_size: 3, gradient_accumulation: 2, save_interval: 4, validation_interval: 6, seed: 5}}
output: {tmp_path / "run"}
""")
    return path
