import pytest
import torch

from finetune.quantization import measurement
from galen.progress import Progress


@pytest.mark.slow
def test_speeds_are_the_median_after_a_warm_up(tiny_llama, capsys):
    """The first reading is slow, as when kernels compile, and a middle one, as under load."""
    import time

    from transformers import AutoModelForCausalLM

    model, times = AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), []

    def slow(*_):
        times.append(0.0)
        if len(times) in (1, 3):
            time.sleep(1)

    model.register_forward_pre_hook(slow)
    runs = 2 * (measurement.REPEATS + 1)
    with Progress("speed", runs, "runs") as progress:
        reading, _ = measurement._speed(model, torch.device("cpu"), progress)
    assert f"speed: {runs} of {runs} runs (100%)" in capsys.readouterr().err
    assert reading > measurement.PROMPT_TOKENS / 0.9
    assert len(times) == (measurement.REPEATS + 1) * (1 + measurement.NEW_TOKENS)
