"""Rendezvous of processes, and calls of Transformer Engine, which stand-ins replace."""

import enum
import socket
import sys
from types import ModuleType

import psutil
import pytest
import torch

from galen.errors import DataError, UsageError
from galen.recipe import load
from megatron_ext import bootstrap
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import platforms
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT

OVERLAP = [
    "parallel.tensor_model_parallel_size=3",
    "parallel.sequence_parallel=true",
    "parallel.tp_comm_overlap=true",
]
FP8 = ["training.fp8_format=hybrid", "training.fp8_recipe=tensorwise"]


@pytest.mark.parametrize("gpu", [True, False])
def test_without_a_gpu_megatron_does_not_see_gpu_packages(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    packages = ("transformer_engine", "apex")
    for name in packages:
        monkeypatch.delitem(sys.modules, name, raising=False)
    bootstrap()
    assert [name in sys.modules for name in packages] == [not gpu, not gpu]


@pytest.mark.parametrize(
    ("overrides", "modes"),
    [
        ([], ["NONE"]),
        (FP8, ["FP8"]),
        ([*FP8, "training.first_last_layers_bf16=true"], ["FP8", "NONE"]),
    ],
)
def test_buffers_of_the_overlap(tmp_path, monkeypatch, overrides, modes):
    base, options = ModuleType("base"), {}
    base.UserBufferQuantizationMode = enum.Enum("UserBufferQuantizationMode", ["NONE", "FP8"])
    base.initialize_ub = options.update
    monkeypatch.setitem(sys.modules, "transformer_engine.pytorch.module.base", base)
    (tmp_path / "r.yaml").write_text(TEXT)
    (tmp_path / "o.yaml").write_text("proj_fprop: {num_sm: 24}")
    run = load(Recipe, tmp_path / "r.yaml", [*OVERLAP, *overrides])
    platform = platforms.Platform(
        device=torch.device("cuda", 0), backend="nccl", transformer_engine=True
    )
    platform.start_tp_overlap(run, SHAPE.hidden_size)
    assert [mode.name for mode in options.pop("quantization_modes")] == modes
    tokens = run.data.seq_length * run.training.micro_batch_size
    assert options == {
        "shape": [tokens, SHAPE.hidden_size],
        "tp_size": 3,
        "ub_cfgs": None,
        "bootstrap_backend": "nccl",
    }
    run.parallel.tp_comm_overlap_cfg = str(tmp_path / "o.yaml")
    platform.start_tp_overlap(run, SHAPE.hidden_size)
    assert options["ub_cfgs"] == {"proj_fprop": {"num_sm": 24}}


def test_an_installation_that_does_not_load_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "transformer_engine"
    (package / "pytorch").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "pytorch" / "__init__.py").write_text(
        "raise OSError('libcudart.so.13: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "transformer_engine", raising=False)
    with pytest.raises(
        UsageError, match=r"does not load: OSError: libcudart\.so\.13.*requirements-gpu\.txt"
    ):
        platforms._check_transformer_engine()
    monkeypatch.setitem(sys.modules, "transformer_engine", None)


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in {
            "RANK": 0,
            "WORLD_SIZE": 1,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(
            DataError,
            match=(
                rf"cannot meet the other processes at 127\.0\.0\.1, port {port} .*address already"
                r" in use"
            ),
        ):
            platforms.detect_platform().init_distributed()


def test_an_incomplete_environment_is_refused(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(
        UsageError,
        match="RANK is set, MASTER_ADDR and MASTER_PORT not: start the run with torchrun",
    ):
        platforms.detect_platform().init_distributed()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_torch_compile_works_on_the_cpu_platform():
    """It refuses one function under several of PyTorch's names, as some stand-ins were."""
    from torch._dynamo import trace_rules

    platforms.current_platform()
    trace_rules.get_torch_obj_rule_map.cache_clear()
    assert trace_rules.get_torch_obj_rule_map()


@pytest.mark.parametrize(
    ("cuda", "capability", "fp8_recipe", "message"),
    [
        ("12.8", (9, 0), "blockwise", r"blockwise needs a PyTorch for CUDA 12\.9 or later"),
        ("12.9", (9, 0), "blockwise", None),
        ("13.0", (9, 0), "blockwise", None),
        ("12.8", (9, 0), "tensorwise", None),
        ("13.0", (8, 9), "blockwise", "blockwise needs Hopper GPUs"),
    ],
)
def test_fp8_that_the_gpu_or_cuda_lacks(
    tmp_path, monkeypatch, cuda, capability, fp8_recipe, message
):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    (tmp_path / "r.yaml").write_text(TEXT)
    run = load(
        Recipe,
        tmp_path / "r.yaml",
        ["training.fp8_format=hybrid", f"training.fp8_recipe={fp8_recipe}"],
    )
    platform = platforms.Platform(
        device=torch.device("cuda", 0), backend="nccl", transformer_engine=True
    )
    if message is None:
        platform.check(run)
        return
    with pytest.raises(UsageError, match=message):
        platform.check(run)


def test_the_store_of_a_single_process_is_local():
    store = platforms._local_store()
    store.set("key", "value")
    assert store.get("key") == b"value"
    listening = {
        connection.laddr
        for connection in psutil.Process().net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert ("127.0.0.1", store.port) in listening
