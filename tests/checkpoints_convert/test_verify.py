"""verify.py finds two equal models equal under every layout, and every wrong mapping."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import hf_to_megatron, verify
from checkpoints_convert.families import FAMILIES
from checkpoints_convert.families.mappings import (
    DirectMapping,
    GatedMLPMapping,
    QKVMapping,
    RowRange,
)
from galen.errors import DataError, UsageError
from megatron_ext.config.architecture import read_architecture
from tests.conftest import run


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-3.2")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "megatron"
    hf_to_megatron.main(["--hf", str(model), "--output", str(folder)])
    return folder


def assert_the_same(printed):
    assert "26 of 26 Megatron tensors equal bit by bit" in printed
    assert "256 positions, fp32" in printed
    assert printed.endswith("\nthe same model\n")


@pytest.mark.multiprocess
def test_equal_under_two_processes_as_a_user_would_see(model, checkpoint):
    words = ["--hf", model, "--megatron", checkpoint, "--tp", 2]
    assert_the_same(run("checkpoints_convert/verify.py", *words).stdout)


@pytest.mark.multiprocess
@pytest.mark.parametrize("layout", ["", "--pp 2", "--tp 2 --pp 2"])
def test_equal_under_other_layouts(model, checkpoint, layout, forked_logits, capsys):
    capsys.readouterr()
    words = ["--hf", str(model), "--megatron", str(checkpoint), *layout.split()]
    assert verify.main(words) == 0
    assert_the_same(capsys.readouterr().out)


def test_a_layout_that_does_not_divide_the_model_is_refused_before_any_work(
    model, checkpoint, capsys
):
    with pytest.raises(
        UsageError,
        match="4 attention heads cannot be divided by tensor-parallel size 3; possible: 1, 2, 4",
    ):
        verify.main(["--hf", str(model), "--megatron", str(checkpoint), "--tp", "3"])
    assert not capsys.readouterr().out


def test_one_token_is_no_proof(model, checkpoint):
    with pytest.raises(UsageError, match="--max-tokens must be at least 2"):
        verify.main(["--hf", str(model), "--megatron", str(checkpoint), "--max-tokens", "1"])


def test_a_text_within_the_sliding_window_is_reported(checkpoint, caplog):
    architecture = read_architecture(checkpoint / "iter_0000000")
    architecture = dataclasses.replace(architecture, window_size=256)
    verify._warn_of_idle_window(architecture, 257)
    assert not caplog.text
    verify._warn_of_idle_window(architecture, 256)
    assert "the 256 tokens of the text fit in the sliding window of 256" in caplog.text


def test_a_model_without_tokenizer_is_reported_at_import_and_compared_by_its_weights(
    model, tmp_path, caplog
):
    hf = shutil.copytree(model, tmp_path / "hf", ignore=shutil.ignore_patterns("tokenizer*"))
    hf_to_megatron.main(["--hf", str(hf), "--output", str(tmp_path / "megatron")])
    assert f"{hf} has no tokenizer" in caplog.text
    both = ["--hf", str(hf), "--megatron", str(tmp_path / "megatron")]
    assert verify.main([*both, "--weights-only"]) == 0
    with pytest.raises(DataError, match=r"no tokenizer .* --weights-only"):
        verify.main(both)


@dataclasses.dataclass(frozen=True)
class Ungrouped(QKVMapping):
    """All queries, then all keys, then all values: wrong for grouped queries."""

    def rows(self, architecture):
        heads = (
            architecture.num_attention_heads,
            architecture.num_query_groups,
            architecture.num_query_groups,
        )
        return [
            RowRange(number, 0, count * architecture.kv_channels)
            for number, count in enumerate(heads)
        ]


def swap_gate_and_up(mapping):
    return (
        GatedMLPMapping(mapping.megatron, mapping.hf[::-1])
        if isinstance(mapping, GatedMLPMapping)
        else mapping
    )


def ungroup(mapping):
    return Ungrouped(mapping.megatron, mapping.hf) if isinstance(mapping, QKVMapping) else mapping


def swap_norms(mapping):
    names = ("input_layernorm", "post_attention_layernorm")
    swapped = {
        name: mapping.hf[0].replace(name, other)
        for name, other in (names, names[::-1])
        if f".{name}." in mapping.hf[0]
    }
    return DirectMapping(mapping.megatron, (next(iter(swapped.values())),)) if swapped else mapping


@pytest.fixture
def wrong_checkpoint(model, tmp_path, monkeypatch):
    """Import the model with another mapping, and put the right one back."""

    def make(change):
        family = FAMILIES["llama"]
        with monkeypatch.context() as patch:
            patch.setitem(
                FAMILIES,
                "llama",
                dataclasses.replace(
                    family, layer=tuple(change(mapping) for mapping in family.layer)
                ),
            )
            hf_to_megatron.main(["--hf", str(model), "--output", str(tmp_path / "wrong")])
        return tmp_path / "wrong"

    return make


@pytest.mark.parametrize("change", [swap_gate_and_up, ungroup, swap_norms])
def test_a_wrong_mapping_is_caught_by_the_weights(model, wrong_checkpoint, change, capsys):
    assert (
        verify.main(
            ["--hf", str(model), "--megatron", str(wrong_checkpoint(change)), "--weights-only"]
        )
        == 1
    )
    assert "NOT the same model" in capsys.readouterr().out


@pytest.mark.multiprocess
def test_a_wrong_mapping_is_caught_by_the_logits(
    model, wrong_checkpoint, forked_logits, capsys, monkeypatch
):
    """Were the mapping itself wrong, the weights would agree with it: the logits must not."""
    folder = wrong_checkpoint(ungroup)
    monkeypatch.setattr(verify, "compare_weights", lambda *_: True)
    assert verify.main(["--hf", str(model), "--megatron", str(folder)]) == 1
    assert "NOT the same model" in capsys.readouterr().out


@pytest.mark.multiprocess
def test_bf16_has_a_bound_of_its_own(
    model, checkpoint, wrong_checkpoint, forked_logits, capsys, monkeypatch
):
    options = ["--dtype", "bf16", "--hf", str(model), "--megatron"]
    assert verify.main([*options, str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    largest, bound, own = map(
        float,
        re.search(
            r"largest relative difference (\S+), bound (\S+) \(3 times .* (\S+) between", printed
        ).groups(),
    )
    assert bound == pytest.approx(3 * own, rel=0.01)
    assert 0 < largest <= 1.5 * own < 0.2
    monkeypatch.setattr(verify, "compare_weights", lambda *_: True)
    assert verify.main([*options, str(wrong_checkpoint(swap_gate_and_up))]) == 1


def test_one_changed_bit_is_named(model, checkpoint, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"].view(torch.int32)[5, 7] ^= 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert verify.main(["--hf", str(other), "--megatron", str(checkpoint), "--weights-only"]) == 1
    printed = capsys.readouterr().out
    assert (
        "decoder.layers.mlp.linear_fc1.weight (layer 2) is not model.layers.2.mlp.gate_proj.weight,"
        " model.layers.2.mlp.up_proj.weight" in printed
    )
    assert "25 of 26" in printed


def test_another_configuration_is_named(model, checkpoint, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "hf")
    config = json.loads((model / "config.json").read_text()) | {"rms_norm_eps": 1e-4}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    assert (
        verify.main(["--hf", str(tmp_path / "hf"), "--megatron", str(checkpoint), "--weights-only"])
        == 1
    )
    assert "layernorm_epsilon is 0.0001 instead of 1e-06" in capsys.readouterr().out


def test_a_stored_tied_tensor_may_hold_nan(tmp_path, make_model, capsys):
    """NaN is not equal to itself; its bits are."""
    model = tmp_path / "model"
    shutil.copytree(make_model("llama-3.2"), model)
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, :5] = float("nan")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
        model / "model.safetensors",
    )
    hf_to_megatron.main(["--hf", str(model), "--output", str(tmp_path / "megatron")])
    assert (
        verify.main(
            ["--hf", str(model), "--megatron", str(tmp_path / "megatron"), "--weights-only"]
        )
        == 0
    )
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["lm_head.weight"][3, 0] = 1.0
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(DataError, match="the file holds a different tensor"):
        hf_to_megatron.main(["--hf", str(model), "--output", str(tmp_path / "other")])


def test_fp32_logits_are_computed_without_gpus(monkeypatch):
    """There Transformer Engine multiplies in TF32, which no bound for fp32 allows."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert verify._environment("fp32")["CUDA_VISIBLE_DEVICES"] == ""
    assert verify._environment("bf16")["CUDA_VISIBLE_DEVICES"] == "0,1"
