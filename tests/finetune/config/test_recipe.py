from pathlib import Path

import pytest

from finetune.config.recipe import Recipe
from galen import recipe
from galen.errors import UsageError

PUBLISHED = {
    "meditron_medqa": {
        "epochs": 3,
        "lr": 2e-5,
        "min_lr": 2e-6,
        "lr_warmup_fraction": 0.1,
        "weight_decay": 0.1,
        "batch": 64,
    },
    "mmedbench_full": {
        "epochs": 5,
        "lr": 1e-6,
        "lr_warmup_fraction": 0.03,
        "weight_decay": 0.0,
        "batch": 128,
    },
    "mmedbench_lora": {"epochs": 3, "lr": 2e-5, "batch": 128},
    "biomistral_qlora": {"epochs": 6, "lr": 2e-5, "batch": 8 * 8},
}  # on eight processes


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_the_published_ones(name):
    options = recipe.load(Recipe, Path(f"examples/finetune/{name}.yaml"))
    training = options.training
    expected = dict(PUBLISHED[name])
    assert training.micro_batch_size * training.gradient_accumulation_steps * 8 == expected.pop(
        "batch"
    )
    assert training.epochs == expected.pop("epochs")
    assert {key: getattr(options.optimizer, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.min_lr=1", r"min_lr \(1\.0\) is above lr"),
        ("optimizer.lr_decay_style=constant", "min_lr has no effect with lr_decay_style: constant"),
        ("lora={target_modules: []}", "lora.target_modules: .*at least 1 item"),
        (
            "lora={target_parameters: [experts.down_proj], dropout: 0.1}",
            "target_parameters take no dropout; set dropout: 0",
        ),
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
def test_mistakes_are_reported(override, message):
    with pytest.raises(UsageError, match=message):
        recipe.load(Recipe, "examples/finetune/meditron_medqa.yaml", [override])
