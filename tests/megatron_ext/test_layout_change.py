"""A run that is stopped again and again and goes on under another layout keeps the losses and samples of one that never stopped.

Its sources, their change at a step and the ramp of the batch go on with it.
"""

import json

import numpy
import pytest

from tests.megatron_ext.conftest import log, write

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}}}
data:
  seq_length: 32
  num_workers: 0
  sources:
    counting:
      train: [{data}/train_text_document, {data}/validation_text_document]
      validation: [{data}/validation_text_document]
      weight: 3
    other: {{train: [{data}/other_text_document], validation: [{data}/other_text_document], weight: 1}}
  phases: [{{start_step: 5, weights: {{other: 1}}}}]
training:
  {{train_iters: 8, micro_batch_size: 2, global_batch_size: 8, rampup_batch_size: [4, 4, 12], precision: fp32,
    eval_interval: 8, eval_iters: 1, save_interval: 100}}
optimizer: {{lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2}}
"""
PIPELINE = "parallel.pipeline_model_parallel_size=2"
LAYOUTS = [
    (2, ["parallel.tensor_model_parallel_size=2", "training.micro_batch_size=4"]),
    (2, [PIPELINE, "parallel.virtual_pipeline_model_parallel_size=2"]),
    (4, [PIPELINE]),
    (2, ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]),
    (2, ["training.micro_batch_size=1"]),
]


@pytest.fixture(scope="module")
def whole_sequences(tmp_path_factory):
    """A folder with data that fill their sequences: without padding a mean over tokens divides by a power of two, without rounding."""
    folder, random = tmp_path_factory.mktemp("whole"), numpy.random.default_rng(0)
    for name, tokens in (("train", 100 * 32 + 1), ("validation", 30 * 32 + 1), ("other", 90 * 32 + 1)):
        bounds = [0, *numpy.sort(random.choice(numpy.arange(1, tokens), 99, replace=False)), tokens]
        starts, steps = random.integers(0, 300, 100), random.integers(1, 4, 100)
        documents = [
            (start + step * numpy.arange(end - begin)) % 300
            for begin, end, start, step in zip(bounds, bounds[1:], starts, steps, strict=False)
        ]
        write(folder / f"{name}_text_document", documents)
    return folder


@pytest.mark.multiprocess
def test_the_losses_do_not_notice(tmp_path, pretrain_forked, whole_sequences):
    recipe = RECIPE.replace("{data}", str(whole_sequences))
    whole = pretrain_forked(1, output=tmp_path / "whole", recipe=recipe)
    steps = log(whole, "train")
    assert [record["global_batch_size"] for record in steps] == [4, 4, 4, 8, 8, 8, 8, 8]
    assert [record["consumed_samples"] for record in steps] == [4, 8, 12, 20, 28, 36, 44, 52]
    validation = log(whole, "validation")[-1]
    assert validation["loss"] == pytest.approx(0.75 * validation["sources"]["counting"] + 0.25 * validation["sources"]["other"])

    changing = tmp_path / "changing"
    changing.mkdir()
    for stops, (processes, layout) in enumerate(LAYOUTS):
        (changing / "stop").touch()  # each start takes one step, then finds the file
        codes, written = pretrain_forked(processes, *layout, output=changing, recipe=recipe, check=False)
        assert codes == [75] * processes, written[-3000:]
        assert json.loads((changing / "stopped.json").read_text()) == {"reason": "trigger file", "iteration": stops + 1, "exit_code": 75}
        assert not (changing / "stop").exists()
    pretrain_forked(1, output=changing, recipe=recipe)
    assert not (changing / "stopped.json").exists()
    for expected, found in zip(steps, log(changing, "train"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert (found["consumed_samples"], found["lr"]) == (expected["consumed_samples"], expected["lr"])
    assert log(changing, "validation")[-1]["loss"] == pytest.approx(validation["loss"], rel=1e-6)
