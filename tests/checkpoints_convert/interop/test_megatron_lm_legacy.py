"""Checkpoints of MEDITRON's trainer convert to the model that they were made of.

They are written here rank by rank, as its code would.
"""

import json
import shutil
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file

from checkpoints_convert import describe, legacy_to_megatron, megatron_to_hf
from checkpoints_convert.interop import megatron_lm_legacy
from galen.errors import DataError


def permute(rows):
    """Half-wise rotary rows of one head to pair-wise, as Megatron-LLM's weights_conversion does."""
    return rows.view(2, rows.size(0) // 2, -1).transpose(0, 1).reshape(rows.size(0), -1)


def write_ranks(hf, folder, tensor, pipeline, key="encoder"):
    """Write what Megatron-LLM saves of the Llama in `hf` over tensor x pipeline ranks.

    The vocabulary is padded to 512.
    """
    config, old = json.loads((hf / "config.json").read_text()), load_file(hf / "model.safetensors")
    heads, groups, layers = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["num_hidden_layers"],
    )
    size = config["hidden_size"] // heads
    arguments = {
        "num_layers": layers,
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": heads,
        "num_attention_heads_kv": groups,
        "max_position_embeddings": 512,
        "layernorm_epsilon": config["rms_norm_eps"],
        "padded_vocab_size": 512,
        "glu_activation": "swiglu",
        "use_rms_norm": True,
        "use_bias": False,
        "tie_embed_logits": False,
        "rope_theta": 10000.0,
    }
    pad = (0, 0, 0, 212)
    attention = "self_attention" if key == "encoder" else "attention"
    for stage in range(pipeline):
        for rank in range(tensor):
            block = {}
            for layer in range(layers // pipeline):
                name = f"model.layers.{stage * (layers // pipeline) + layer}"
                query, keys, value = (
                    old[f"{name}.self_attn.{part}_proj.weight"].split(size) for part in "qkv"
                )
                fused = []
                for group in range(rank * groups // tensor, (rank + 1) * groups // tensor):
                    fused += [
                        permute(query[group * heads // groups + n]) for n in range(heads // groups)
                    ]
                    fused += [permute(keys[group]), value[group]]
                block[f"layers.{layer}.{attention}.query_key_value.weight"] = torch.cat(fused)
                block[f"layers.{layer}.{attention}.dense.weight"] = (
                    old[f"{name}.self_attn.o_proj.weight"].chunk(tensor, 1)[rank].clone()
                )
                up, gate = (
                    old[f"{name}.mlp.{part}_proj.weight"].chunk(tensor)[rank]
                    for part in ("up", "gate")
                )
                block[f"layers.{layer}.mlp.dense_h_to_4h.weight"] = torch.cat([up, gate])
                block[f"layers.{layer}.mlp.dense_4h_to_h.weight"] = (
                    old[f"{name}.mlp.down_proj.weight"].chunk(tensor, 1)[rank].clone()
                )
                for norm in ("input_layernorm", "post_attention_layernorm"):
                    block[f"layers.{layer}.{norm}.weight"] = old[f"{name}.{norm}.weight"]
            model = {key: block}
            if stage == 0:
                embedding = (
                    torch.nn.functional.pad(old["model.embed_tokens.weight"], pad)
                    .chunk(tensor)[rank]
                    .clone()
                )
                model["embedding"] = {"word_embeddings": {"weight": embedding}}
            if stage == pipeline - 1:
                block["final_layernorm.weight"] = old["model.norm.weight"]
                model["lm_head"] = (
                    torch.nn.functional.pad(old["lm_head.weight"], pad).chunk(tensor)[rank].clone()
                )
            path = (
                folder
                / "iter_0000020"
                / (f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pipeline > 1 else ""))
            )
            path.mkdir(parents=True)
            content = {
                "iteration": 20,
                "checkpoint_version": 3.0,
                "args": Namespace(**arguments),
                "model": {"language_model": model},
            }
            torch.save(
                content | {"optimizer": {"step": 20}, "rng_state": [torch.get_rng_state()]},
                path / "model_optim_rng.pt",
            )
    (folder / "latest_checkpointed_iteration.txt").write_text("20")


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-2", num_key_value_heads=2)


@pytest.mark.parametrize(
    ("tensor", "pipeline", "key"), [(1, 1, "transformer"), (2, 1, "encoder"), (2, 2, "encoder")]
)
def test_the_model_comes_back(tmp_path, model, tensor, pipeline, key):
    write_ranks(model, tmp_path / "old", tensor, pipeline, key)
    legacy_to_megatron.main(
        [
            "--legacy",
            str(tmp_path / "old"),
            "--tokenizer",
            str(model),
            "--output",
            str(tmp_path / "new"),
        ]
    )
    megatron_to_hf.main(["--megatron", str(tmp_path / "new"), "--output", str(tmp_path / "back")])
    expected, actual = (
        load_file(model / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert actual.keys() == expected.keys()
    for name, tensor_ in expected.items():
        assert actual[name].equal(tensor_), name
    assert json.loads((tmp_path / "back" / "config.json").read_text())["num_key_value_heads"] == 2


def test_another_vocabulary_is_another_model(tmp_path, model, caplog):
    caplog.set_level("INFO")
    write_ranks(model, tmp_path / "old", 1, 1)
    options = ["--legacy", str(tmp_path / "old"), "--output", str(tmp_path / "new"), "--vocab-size"]
    legacy_to_megatron.main([*options, "300"])
    legacy_to_megatron.main([*options, "300"])
    assert "already complete" in caplog.text
    with pytest.raises(DataError, match=r"belongs to another run \(vocab_size: 300 → 301\)"):
        legacy_to_megatron.main([*options, "301"])


def test_described(tmp_path, model, capsys):
    write_ranks(model, tmp_path / "old", 2, 2)
    assert describe.main([str(tmp_path / "old")]) == 0
    printed = capsys.readouterr().out
    assert "Megatron-LLM" in printed
    assert "TP2 x PP2" in printed


def test_a_lost_rank_is_named(tmp_path, model):
    write_ranks(model, tmp_path / "old", 2, 2)
    shutil.rmtree(tmp_path / "old" / "iter_0000020" / "mp_rank_01_000")
    with pytest.raises(DataError, match="holds 3 ranks, but their names imply 2 x 2"):
        legacy_to_megatron.main(
            [
                "--legacy",
                str(tmp_path / "old"),
                "--tokenizer",
                str(model),
                "--output",
                str(tmp_path / "new"),
            ]
        )


def test_too_large_a_tokenizer(tmp_path, model):
    write_ranks(model, tmp_path / "old", 1, 1)
    with pytest.raises(DataError, match=r"give 600 ids, .* has 512 padded rows"):
        legacy_to_megatron.main(
            [
                "--legacy",
                str(tmp_path / "old"),
                "--vocab-size",
                "600",
                "--output",
                str(tmp_path / "new"),
            ]
        )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_experts", 8),
        ("use_bias", True),
        ("sliding_window_size", 4096),
        ("parallel_attn", True),
    ],
)
def test_an_argument_that_is_no_llama_s(tmp_path, model, argument, value):
    write_ranks(model, tmp_path / "old", 1, 1)
    ranks = megatron_lm_legacy.Ranks(tmp_path / "old")
    setattr(ranks.arguments, argument, value)
    with pytest.raises(DataError, match=f"{argument} = {value} is not supported"):
        ranks.architecture(300)
