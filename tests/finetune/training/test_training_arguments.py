import pytest
import torch
from transformers import get_scheduler

from finetune.config.recipe import Optimizer, Training
from finetune.training.training_arguments import training_arguments


def learning_rates(tmp_path, steps, **optimizer):
    """Return the learning rate of each step of a run, from its first."""
    options = training_arguments(
        Optimizer(lr=1.0, **optimizer),
        Training(train_iters=steps),
        tmp_path,
        steps,
        validate=False,
        resumed=False,
    )
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        options.lr_scheduler_type,
        adamw,
        options.get_warmup_steps(steps),
        steps,
        options.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        adamw.step()
        scheduler.step()
    return rates


def test_min_lr_of_a_linear_decay(tmp_path):
    rates = learning_rates(
        tmp_path, 10, lr_decay_style="linear", min_lr=0.2, lr_warmup_fraction=0.2
    )
    assert rates == pytest.approx([0, 0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])


@pytest.mark.parametrize(
    ("style", "rates"), [("linear", [0, 1, 2 / 3, 1 / 3]), ("constant", [0, 1, 1, 1])]
)
def test_schedules_without_min_lr(tmp_path, style, rates):
    assert learning_rates(tmp_path, 4, lr_decay_style=style) == pytest.approx(rates)


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_a_run_of_warmup_only_and_a_min_lr_of_lr(tmp_path, style):
    assert learning_rates(tmp_path, 1, lr_decay_style=style, min_lr=0.5) == [0]
    rates = learning_rates(tmp_path, 3, lr_decay_style=style, min_lr=1.0)
    assert rates == pytest.approx([0, 1, 1])
