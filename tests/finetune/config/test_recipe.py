from pathlib import Path

import pytest

from finetune.config.recipe import Recipe
from galen import recipe
from galen.errors import UsageError

PUBLISHED = {
    "meditron_medqa": {
        "epochs": 3,
        "learning_rate": 2e-5,
        "final_learning_rate": 2e-6,
        "warmup_ratio": 0.1,
        "weight_decay": 0.1,
        "batch": 64,
    },
    "mmedbench_full": {
        "epochs": 5,
        "learning_rate": 1e-6,
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "batch": 128,
    },
    "mmedbench_lora": {"epochs": 3, "learning_rate": 2e-5, "batch": 128},
    "biomistral_qlora": {"epochs": 6, "learning_rate": 2e-5, "batch": 8 * 8},
}  # on eight processes


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_the_published_ones(name):
    training = recipe.load(Recipe, Path(f"examples/finetune/{name}.yaml")).training
    wanted = dict(PUBLISHED[name])
    assert training.micro_batch_size * training.gradient_accumulation * 8 == wanted.pop("batch")
    assert {key: getattr(training, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.final_learning_rate=1", r"final_learning_rate \(1\.0\) is above learning_rate"),
        ("lora={target_modules: []}", "lora.target_modules: .*at least 1 item"),
        (
            "data.train=[{set: medqa, file: a.jsonl}]",
            r"^.*'data\.train\.0\.source' is missing\n.*'data\.train\.0\.file'.*$",
        ),
        (
            "data.train=5",
            r"^.*: data\.train: .*valid string\n.*: data\.train: should be a list: \[a, b\]$",
        ),
    ],
)
def test_mistakes_are_told(override, message):
    with pytest.raises(UsageError, match=message):
        recipe.load(Recipe, "examples/finetune/meditron_medqa.yaml", [override])
