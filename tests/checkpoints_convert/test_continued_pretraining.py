"""Each family: imported, trained for a few steps by `galen pretrain`, exported, used.

Validation losses before and after training are those of transformers for the imported and for the
exported model.
"""

import numpy
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints_convert import megatron_to_hf
from tests.checkpoints_convert.tiny_models import FAMILIES, MOE
from tests.megatron_ext.conftest import log, write

pytestmark = pytest.mark.slow

NAMES = [name for name in FAMILIES | MOE if name != "internlm2"]
LENGTH = 48
RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}}}
data: {{train: [{data}], validation: [{data}], seq_length: {length}, num_workers: 0}}
training:
  {{train_iters: 3, global_batch_size: 2, precision: fp32, eval_iters: 2, eval_interval: 3}}
optimizer: {{lr: 1e-3}}
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> tuple[list[int], str]:
    """A document that fills four sequences, and the prefix of its file."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(300, (4 * LENGTH + 1,), generator=generator).tolist()
    return ids, str(write(tmp_path_factory.mktemp("document") / "document", [numpy.array(ids)]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, checkpoints, document, megatron_side):
    """The run folder of each family, in one process."""
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        text = RECIPE.format(
            output=folder / name, checkpoint=checkpoints[name], data=document[1], length=LENGTH
        )
        (folder / f"{name}.yaml").write_text(text)
    megatron_side(1, "pretrain", *(folder / f"{name}.yaml" for name in NAMES))
    return folder


def loss_of_transformers(hf, ids):
    model = AutoModelForCausalLM.from_pretrained(hf, attn_implementation="eager").eval()
    tokens = torch.tensor(ids)
    rows = torch.stack(
        [tokens[start : start + LENGTH + 1] for start in range(0, 4 * LENGTH, LENGTH)]
    )
    with torch.inference_mode():
        logits = model(rows[:, :-1]).logits
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))


@pytest.mark.parametrize("name", NAMES)
def test_trained_and_exported(tmp_path, models, runs, document, name):
    error = runs / f"{name}.error"
    assert not error.exists(), error.read_text()[-4000:]
    output = tmp_path / "exported"
    checkpoints = runs / name / "checkpoints"
    megatron_to_hf.main(["--megatron", str(checkpoints), "--output", str(output)])
    losses = {record["step"]: record["loss"] for record in log(runs / name, "validation")}
    assert losses[0] == pytest.approx(loss_of_transformers(models[name], document[0]), rel=1e-5)
    assert losses[3] == pytest.approx(loss_of_transformers(output, document[0]), rel=1e-5)
    assert losses[3] < losses[0]
    before = load_file(models[name] / "model.safetensors")
    after = load_file(output / "model.safetensors")
    assert after.keys() == before.keys()
    same = {key for key in before if before[key].equal(after[key])}
    assert all(key.endswith((".act_fn.beta", ".act_fn.eps")) for key in same), same
