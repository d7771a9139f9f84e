"""A tiny random Llama and small data in the layout of the built-in tasks."""

import json

import pytest


@pytest.fixture(scope="session")
def tiny_llama(make_llama):
    """A model folder; far enough from uniform predictions that a wrong position shows."""
    return make_llama(num_hidden_layers=2, max_position_embeddings=256, initializer_range=0.15)


@pytest.fixture
def data(tmp_path):
    """A data folder with 9 questions and 7 documents, as the built-in tasks want them."""
    folder = tmp_path / "data"
    (folder / "questions").mkdir(parents=True)
    (folder / "corpus" / "test").mkdir(parents=True)
    words = [
        "The",
        "heart",
        "of",
        "12",
        "rats;",
        "ß-blockade",
        "lowered",
        "血圧",
        "by",
        "5",
        "%",
        "in",
        "all",
        "groups.",
    ]
    with (folder / "questions" / "test.jsonl").open("w", encoding="utf-8") as file:
        for number in range(9):
            record = {
                "id": f"q{number}",
                "context": " ".join(words[: 3 + number]),
                "question": "Which heading is a major topic?",
                "options": {"A": "Heart", "B": "Liver failure", "C": "Rats", "D": "Kidney"},
                "answer": "ABCD"[number % 4],
                "pmid": str(number),
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    with (folder / "corpus" / "test" / "00000.jsonl").open("w", encoding="utf-8") as file:
        for number in range(7):
            file.write(
                json.dumps(
                    {
                        "id": f"d{number}",
                        "text": " ".join(words[number:] * (number + 1)),
                        "metadata": {},
                    }
                )
                + "\n"
            )
    return folder
