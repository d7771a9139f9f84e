"""verify.py catches faults that were planted in checkpoints: by the weights, and by the logits.

Were the converter itself wrong, the weights would agree with it: so each fault must show in the
logits as well, which transformers computes for the original.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import hf_to_megatron, verify
from megatron_ext.config.architecture import read_architecture

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A checkpoint whose weights or architecture are not those of its model."""

    model: str
    reported: str
    """Part of what the comparison of weights and configuration prints."""
    weights: Callable[[Tensors], None] | None = None
    """Changes the Hugging Face tensors before the import."""
    architecture: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Changes architecture.json after it."""


def exchange(first: str, second: str) -> Callable[[Tensors], None]:
    """Exchange the tensors whose names contain `first` with those of `second`."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if first in name]:
            other = name.replace(first, second)
            tensors[name], tensors[other] = tensors[other], tensors[name]

    return change


def lose_sink(tensors: Tensors) -> None:
    tensors["model.layers.1.self_attn.sinks"][2] = -1e4


def interleave_gate(tensors: Tensors) -> None:
    gate, up = (f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up"))
    rows = torch.stack([tensors[gate], tensors[up]], 1).flatten(0, 1)
    tensors[gate], tensors[up] = (part.contiguous() for part in rows.chunk(2))


def stack_gate(tensors: Tensors) -> None:
    """Leave columns for the gate and up of gpt-oss' experts one after another."""
    name = "model.layers.1.mlp.experts.gate_up_proj"
    columns = tensors[name]
    tensors[name] = torch.cat([columns[..., ::2], columns[..., 1::2]], -1)


def transpose(tensors: Tensors) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name] = tensors[name].t().contiguous()


def exchange_router_rows(tensors: Tensors) -> None:
    router = tensors["model.layers.1.mlp.gate.weight"]
    router[[0, 3]] = router[[3, 0]]


FAULTS = {
    "swapped experts": Fault(
        "mixtral",
        "layer 1, expert 2",
        weights=exchange(
            "layers.1.block_sparse_moe.experts.0.", "layers.1.block_sparse_moe.experts.2."
        ),
    ),
    "swapped down projections": Fault(
        "qwen3-moe",
        "layer 1, expert 0",
        weights=exchange("layers.1.mlp.experts.0.down_proj", "layers.1.mlp.experts.1.down_proj"),
    ),
    "rows of the router": Fault("olmoe", "mlp.router.weight", weights=exchange_router_rows),
    "a lost sink": Fault("gpt-oss", "softmax_offset", weights=lose_sink),
    "no sinks": Fault("gpt-oss", "softmax_type", architecture={"softmax_type": "vanilla"}),
    "rotary base": Fault("llama-3", "rotary_base", architecture={"rotary_base": 1e4}),
    "rotary scaling": Fault(
        "llama-3.2", "rope_scaling_factor", architecture={"rope_scaling_factor": None}
    ),
    "local rotary base": Fault(
        "gemma3", "local_rotary_base", architecture={"local_rotary_base": 1e6}
    ),
    "norms at each other's place": Fault(
        "gemma3",
        "layernorm",
        weights=exchange("layers.1.post_attention_layernorm", "layers.1.pre_feedforward_layernorm"),
    ),
    "norms of another layer": Fault(
        "olmo2",
        "layernorm",
        weights=exchange(
            "layers.0.post_feedforward_layernorm", "layers.1.post_feedforward_layernorm"
        ),
    ),
    "gate and up": Fault(
        "llama-3", "linear_fc1", weights=exchange("gate_proj.weight", "up_proj.weight")
    ),
    "interleaved gate": Fault("qwen3", "linear_fc1", weights=interleave_gate),
    "stacked gate": Fault("gpt-oss", "linear_fc1", weights=stack_gate),
    "transposed projection": Fault("llama-2", "linear_proj", weights=transpose),
    "embedding scale": Fault(
        "gemma3", "scale_embeddings", architecture={"scale_embeddings": False}
    ),
    "lost window": Fault("mistral-v0.1", "window_size", architecture={"window_size": None}),
    "layers of the window": Fault(
        "olmo3",
        "window_attn_skip_freq",
        architecture={"window_attn_skip_freq": (0, 1, 1, 1)},
    ),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, models, checkpoints) -> dict[str, Path]:
    """A checkpoint with each fault."""
    base = tmp_path_factory.mktemp("faulty")
    made = {}
    for number, (name, fault) in enumerate(FAULTS.items()):
        made[name] = base / str(number)
        if fault.weights is None:
            shutil.copytree(checkpoints[fault.model], made[name])
            folder = made[name] / "iter_0000000"
            dataclasses.replace(read_architecture(folder), **fault.architecture).write(folder)
        else:
            hf = base / f"hf-{number}"
            shutil.copytree(models[fault.model], hf)
            tensors = load_file(hf / "model.safetensors")
            fault.weights(tensors)
            save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
            hf_to_megatron.main(["--hf", str(hf), "--output", str(made[name])])
    return made


@pytest.fixture(scope="module")
def logits(tmp_path_factory, models, checkpoints, faulty, megatron_side) -> dict[str, torch.Tensor]:
    """The logits of all checkpoints, by their folders."""
    folder = tmp_path_factory.mktemp("logits")
    tokens = verify.tokens_of(models["llama-3"], verify.TEXT, 64, 1)
    save_file({"tokens": tokens}, folder / "tokens")
    right = [checkpoints[fault.model] for fault in FAULTS.values()]
    computed = dict.fromkeys([*right, *faulty.values()])
    megatron_side(1, "logits", folder / "tokens", folder / "logits", *computed)
    return load_file(folder / "logits")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_in_the_weights_or_the_configuration(models, faulty, capsys, name):
    fault = FAULTS[name]
    options = ["--hf", str(models[fault.model]), "--megatron", str(faulty[name])]
    assert verify.main([*options, "--weights-only"]) == 1
    printed = capsys.readouterr().out
    assert fault.reported in printed
    assert printed.endswith("NOT the same model\n")


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_in_the_logits(
    models, checkpoints, faulty, logits, capsys, monkeypatch, name
):
    def write(arguments, folder):
        computed = {"logits": logits[str(arguments.megatron)]}
        save_file(computed, f"{folder}/logits.safetensors")

    fault = FAULTS[name]
    monkeypatch.setattr(verify, "_megatron_logits", write)
    monkeypatch.setattr(verify, "compare_weights", lambda *_: True)
    options = ["--hf", str(models[fault.model]), "--max-tokens", "64", "--megatron"]
    assert verify.main([*options, str(faulty[name])]) == 1
    assert verify.main([*options, str(checkpoints[fault.model])]) == 0
