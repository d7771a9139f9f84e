"""A run with other rotary positions than its checkpoint's: trained, resumed, exported, imported."""

import json

import pytest
import torch

from checkpoints_convert import hf_to_megatron, megatron_to_hf
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import read_architecture
from tests.megatron_ext.conftest import losses

ROPE = (
    "data.seq_length=256",
    "model.rope.rotary_base=20000",
    "model.rope.rope_scaling={rope_type: yarn, factor: 2, attention_factor: 1.25}",
)
pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def trained(pretrain_forked):
    """The run folder of four steps at twice the checkpoint's 128 positions."""
    return pretrain_forked(1, *ROPE)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("hf") / "model"
    megatron_to_hf.main(["--megatron", str(trained / "checkpoints"), "--output", str(output)])
    return output


def test_context_parallelism_computes_the_same(trained, pretrain_forked):
    halves = pretrain_forked(2, *ROPE, "parallel.context_parallel_size=2")
    assert losses(halves) == pytest.approx(losses(trained), rel=1e-5)


def test_the_exported_configuration_is_transformers_own(exported):
    from transformers import AutoConfig

    written = json.loads((exported / "config.json").read_text())
    assert written["max_position_embeddings"] == 256
    assert "rope_theta" not in written and "rope_scaling" not in written
    assert written["rope_parameters"] == {
        "rope_theta": 20000.0,
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 128,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": 1.25,
        "truncate": True,
    }
    assert AutoConfig.from_pretrained(exported).rope_parameters == written["rope_parameters"]


def test_another_config_is_refused(trained, untied_llama, tmp_path):
    arguments = ["--megatron", str(trained / "checkpoints"), "--output", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"max_position_embeddings is 128 .*omit --hf"):
        megatron_to_hf.main([*arguments, "--hf", str(untied_llama)])


def test_logits_beyond_the_old_length_survive_both_ways(trained, exported, start_forked, tmp_path):
    from transformers import AutoModelForCausalLM

    imported = tmp_path / "imported"
    hf_to_megatron.main(["--hf", str(exported), "--output", str(imported)])
    folders = [checkpoint_folder.newest(path) for path in (trained / "checkpoints", imported)]
    first, second = map(read_architecture, folders)
    assert first == second
    assert first.yarn is not None and first.max_position_embeddings == 256
    tokens = torch.randint(300, (1, 256), generator=torch.Generator().manual_seed(1))
    torch.save(tokens, tmp_path / "tokens.pt")
    words = [trained / "checkpoints", tmp_path / "first.pt", imported, tmp_path / "second.pt"]
    codes, written = start_forked(
        1, tmp_path / "tokens.pt", *words, module="tests.megatron_ext.print_logits"
    ).wait()
    assert codes == [0], written[-3000:]
    actual, again = (torch.load(path)["logits"] for path in words[1::2])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(exported)(tokens).logits
    torch.testing.assert_close(actual[..., :300], expected, rtol=1e-5, atol=1e-5)
    assert again.equal(actual)


def test_a_resumed_run_keeps_its_positions(trained, pretrain_forked):
    # a longer run would resume, but for the changed base
    overrides = (*ROPE, "training.train_iters=6", "model.rope.rotary_base=30000")
    codes, written = pretrain_forked(1, *overrides, output=trained, check=False)
    assert codes != [0]
    assert "model.rope.rotary_base: 20000.0 → 30000.0" in written
