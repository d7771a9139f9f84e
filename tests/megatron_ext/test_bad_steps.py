"""After a non-finite loss or a loss spike, the step is skipped and the run continues.

The samples are named.
"""

import json
import math
import shutil

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import import_model
from tests.megatron_ext.conftest import goodput, log, write

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}}}
data:
  seq_length: 32
  num_workers: 0
  sources:
    good: {{train: [{data}/good], weight: 1}}
    bad: {{train: [{data}/bad], weight: 0}}
  phases: [{{start_step: STEP, weights: {{bad: 1}}}}, {{start_step: NEXT, weights: {{good: 1}}}}]
training:
  {{train_iters: ITERS, micro_batch_size: 2, global_batch_size: 8, precision: fp32,
    eval_iters: 0, save_interval: 8}}
optimizer: {{lr: 1e-2, weight_decay: 0.0}}
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """`good` counts up to 99 over and over.

    `bad` is noise, and every third document has the token 299.
    """
    folder = tmp_path_factory.mktemp("mixed")
    random = numpy.random.default_rng(0)
    write(folder / "good", [list(range(100))] * 40)
    write(
        folder / "bad",
        [[*random.integers(100, 299, 63), 299 if number % 3 == 0 else 100] for number in range(40)],
    )
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory, untied_llama):
    """A checkpoint whose embedding of the token 299 is not a number."""
    hf, folder = (
        tmp_path_factory.mktemp("broken"),
        tmp_path_factory.mktemp("broken_megatron") / "checkpoint",
    )
    shutil.copytree(untied_llama, hf, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(untied_llama)
    with torch.no_grad():
        model.get_input_embeddings().weight[299] = math.nan
    model.save_pretrained(hf)
    return import_model(hf, folder)


def recipe(step, iters, checkpoint, data):
    text = (
        RECIPE.replace("STEP", str(step))
        .replace("NEXT", str(step + 1))
        .replace("ITERS", str(iters))
    )
    return text.replace("{checkpoint}", str(checkpoint)).replace("{data}", str(data))


@pytest.mark.multiprocess
def test_a_loss_that_is_not_finite_is_skipped_and_its_samples_are_named(
    pretrain_forked, broken, mixed
):
    recipe_text = recipe(2, 5, broken, mixed)
    samples = []
    for processes, micro in ((1, 2), (2, 1)):
        output = pretrain_forked(
            processes, f"training.micro_batch_size={micro}", recipe=recipe_text
        )
        steps = log(output, "train")
        assert [math.isfinite(record["loss"]) for record in steps] == [
            True,
            True,
            False,
            True,
            True,
        ]
        assert [record["skipped_steps"] for record in steps] == [0, 0, 1, 1, 1]
        (skipped,) = log(output, "skipped")
        assert (
            skipped["step"],
            skipped["reason"],
            skipped["first_sample"],
            skipped["samples"],
        ) == (3, "loss", 16, 8)
        samples.append(skipped["not_finite"])
    assert samples[0] == samples[1]
    assert 0 < len(samples[0]) < 8 and set(samples[0]) < set(range(16, 24))
    codes, written = pretrain_forked(
        1, "resilience.max_skipped_steps=0", recipe=recipe_text, check=False
    )
    assert codes == [1] and "Traceback" not in written
    assert f"the last: loss of step 3 (samples {samples[0]})" in written
    codes, written = pretrain_forked(
        1, "resilience.check_for_nan_in_grad=true", recipe=recipe_text, check=False
    )
    assert codes == [1] and "Traceback" not in written
    assert "error: a gradient of rank 0 on " in written, written[-2000:]


@pytest.mark.multiprocess
def test_a_spike_rolls_back_and_skips_the_window(pretrain_forked, checkpoint, mixed):
    recipe_text = recipe(20, 26, checkpoint, mixed)
    guard = ["resilience.loss_spike_threshold=2", "resilience.loss_spike_window=4"]
    output = pretrain_forked(2, *guard, recipe=recipe_text)
    steps, (event,) = log(output, "train"), log(output, "rolled_back")
    assert [record["step"] for record in steps] == list(range(1, 27))
    assert (event["from_step"], event["to_step"], event["first_sample"], event["samples"]) == (
        21,
        16,
        128,
        40,
    )
    assert event["loss"] > 2 * event["median"]
    assert steps[-1]["skipped_steps"] == 5 and steps[-1]["consumed_samples"] == 26 * 8
    assert max(record["loss"] for record in steps[20:]) < 2 * event["median"]
    state = json.loads((output / "checkpoints/iter_0000026/training_state.json").read_text())[
        "progress"
    ]
    assert state["skipped_samples"] == 40
    found = goodput(output)
    assert (found.lost_steps, found.starts[0].rollbacks) == (4, 1)  # 17 to 20
    assert found.parts["lost"] > 0
