"""A tiny random Llama, and learnable questions: the answer is the option named in the context."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import pytest

from tests.conftest import TEXTS
from tests.megatron_ext.conftest import starter

MARKS = ["<|im_start|>", "<|im_end|>"]
SMOLLM2 = Path.home() / ".cache" / "galen" / "SmolLM2-135M-Instruct"  # where `make demo` puts it


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory):
    """A folder with a SentencePiece tokenizer like Llama's.

    A space before the text, byte fallback, BOS.
    """
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return _llama_tokenizer(folder)


@pytest.fixture(scope="session", params=["byte-level", "sentencepiece", "mistral", "smollm2"])
def tokenizer_folder(request, tmp_path_factory):
    """A tokenizer of each kind; the real ones of Mistral and SmolLM2 if on this machine."""
    if request.param == "byte-level":
        return request.getfixturevalue("tiny_tokenizer")
    if request.param == "sentencepiece":
        return request.getfixturevalue("sentencepiece_folder")
    if request.param == "mistral":
        package = importlib.util.find_spec("mistral_common")
        if package is None:
            pytest.skip("mistral-common is not installed")
        folder = tmp_path_factory.mktemp("mistral")
        shutil.copy(
            Path(package.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model"
        )
        return _llama_tokenizer(folder)
    if not SMOLLM2.is_dir():
        pytest.skip("SmolLM2 is not here; make demo fetches it")
    return SMOLLM2


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    """Each tokenizer with chat marks as tokens; tests install a chat template if they need one."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tokenizer_folder)
    made.add_special_tokens(
        {"additional_special_tokens": [mark for mark in MARKS if mark not in made.get_vocab()]}
    )
    return made


def _llama_tokenizer(folder):
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


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
                "context": (
                    f"{number} adults took {options[answer]}."
                    + " They were followed for years." * (number % 3)
                ),
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
data: {{train: {question_file}, validation_fraction: 0.2, max_length: 160}}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
optimizer: {{lr: 0.02}}
training:
  train_iters: 12
  micro_batch_size: 3
  gradient_accumulation_steps: 2
  save_interval: 4
  eval_interval: 6
  seed: 5
output: {tmp_path / "run"}
""")
    return path


@pytest.fixture(scope="session")
def start_forked(tmp_path_factory):
    """Start `finetune/train.py` over forked processes, which begin at once.

    The function takes a recipe and overrides.
    """
    yield from starter(
        tmp_path_factory,
        "finetune.train",
        "finetune.training.run",
        "peft",
        "finetune.merge",
        "finetune.quantize",
        "finetune.export",
    )
