"""The environment of training processes on GPUs, by layout."""

import os
from pathlib import Path

import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import host_memory, process_environment
from megatron_ext.hardware.process_environment import layout_environment
from tests.conftest import ROOT
from tests.megatron_ext.config.test_recipe import TEXT

TENSOR = ["parallel.tensor_model_parallel_size=3"]
OVERLAP = ["parallel.overlap_grad_reduce=true"]
OFFLOAD = [
    "optimizer.use_precision_aware_optimizer=true",
    "optimizer.optimizer_cpu_offload=true",
]
ALWAYS = {
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "TORCH_NCCL_HIGH_PRIORITY": "1",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_FR_DUMP_TEMP_FILE": str(Path("out/hangs/nccl_trace_rank_").absolute()),
}
MARGIN = {"NVTE_FWD_LAYERNORM_SM_MARGIN": "20", "NVTE_BWD_LAYERNORM_SM_MARGIN": "20"}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU driver, and nothing set."""
    monkeypatch.setattr(host_memory, "may_have_gpu", lambda: True)
    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "PYTORCH_CUDA_ALLOC_CONF", *ALWAYS, *MARGIN):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("overrides", "queues", "threads", "further"),
    [
        ([], "32", "1", {}),
        (["parallel.pipeline_model_parallel_size=2"], "32", "1", {}),
        ([*OVERLAP, "training.fp8_format=hybrid"], "32", "1", MARGIN),
        (TENSOR, "1", "1", {}),
        ([*TENSOR, "parallel.sequence_parallel=true", *OVERLAP], "1", "1", MARGIN),
        (["parallel.context_parallel_size=2"], "1", "1", {}),
        (OFFLOAD, "32", "12", {}),
        (
            [
                "training.fine_grained_activation_offloading=true",
                "training.offload_modules=[qkv_linear]",
            ],
            "32",
            "1",
            {"NVTE_CPU_OFFLOAD_V1": "1"},
        ),
    ],
)
def test_environment_of_a_layout(recipe, overrides, queues, threads, further):
    assert layout_environment(recipe(*overrides), local_world_size=8, cpus=96) == {
        "CUDA_DEVICE_MAX_CONNECTIONS": queues,
        "OMP_NUM_THREADS": threads,
        **ALWAYS,
        **further,
    }


def test_the_environment_is_set_where_it_is_not(recipe, gpu, monkeypatch):
    monkeypatch.setenv("TORCH_NCCL_HIGH_PRIORITY", "0")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")  # the name before 2.9
    run = recipe(*TENSOR)
    with process_environment.applied(run):
        assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
        assert os.environ["TORCH_NCCL_HIGH_PRIORITY"] == "0"
        assert "PYTORCH_ALLOC_CONF" not in os.environ
        description = process_environment.describe(run)
    assert "CUDA_DEVICE_MAX_CONNECTIONS=1 " in description
    assert "PYTORCH_ALLOC_CONF=max_split_size_mb:512" in description
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in os.environ


def test_a_machine_without_gpus_is_left_alone(recipe, gpu, monkeypatch):
    monkeypatch.setattr(host_memory, "may_have_gpu", lambda: False)
    before = dict(os.environ)
    with process_environment.applied(recipe()):
        assert os.environ == before
    assert process_environment.describe(recipe()) == ""


DETERMINISTIC = {
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NCCL_ALGO": "Ring",
}


def test_deterministic_mode_sets_its_variables(recipe, gpu, monkeypatch):
    for name in DETERMINISTIC:
        monkeypatch.delenv(name, raising=False)
    run = recipe("training.deterministic_mode=true")
    monkeypatch.setenv("NCCL_ALGO", "^NVLS")  # deterministic, too
    with process_environment.applied(run):
        actual = {name: os.environ[name] for name in DETERMINISTIC}
    assert actual == DETERMINISTIC | {"NCCL_ALGO": "^NVLS"}
    monkeypatch.setenv("NCCL_ALGO", "Ring,Tree")
    with pytest.raises(UsageError, match=r"NCCL_ALGO=Ring,Tree contradicts training.deterministic"):
        process_environment.applied(run).__enter__()
    monkeypatch.setattr(host_memory, "may_have_gpu", lambda: False)
    process_environment.applied(run).__enter__()


def test_the_attention_backend_owns_its_variables(recipe, monkeypatch):
    run = recipe("training.attention_backend=flash")
    with process_environment.applied(run):
        monkeypatch.setenv("NVTE_FUSED_ATTN", "0")  # as the core does
    assert "NVTE_FUSED_ATTN" not in os.environ
    monkeypatch.setenv("NVTE_FLASH_ATTN", "0")
    with pytest.raises(UsageError, match=r"NVTE_FLASH_ATTN=0 contradicts .*backend: flash; unset"):
        process_environment.applied(run).__enter__()
    process_environment.applied(recipe("training.attention_backend=local")).__enter__()


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, 8),
        ({"SLURM_STEP_TASKS_PER_NODE": "8,4"}, 8),
    ],
)
def test_processes_on_this_machine(environment, processes):
    assert process_environment._local_world_size(environment) == processes


def test_the_docs_name_every_variable(recipe):
    text = (ROOT / "docs/pretraining/platforms.md").read_text()
    run = recipe(*TENSOR, *OVERLAP, "training.deterministic_mode=true")
    for name, value in layout_environment(run, 8, 96).items():
        assert f"`{name}`" in text
        assert f"`{value.replace(str(Path('out').absolute()), 'RUN')}`" in text
