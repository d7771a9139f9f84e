"""A CPU run that needs more memory than the machine has is refused, with a setting that fits.

It is refused before it starts.
"""

import dataclasses
import subprocess

import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import read_architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import host_memory
from tests.conftest import ROOT, command
from tests.megatron_ext.conftest import RECIPE

GIB = 2**30


@pytest.fixture
def readme():
    """The recipe of README's line: SmolLM2-135M at 4,096 tokens."""
    words = [
        "parallel.num_layers_in_first_pipeline_stage=null",
        "parallel.pipeline_model_parallel_size=1",
    ]
    return load(
        Recipe,
        ROOT / "examples/demo/pretrain.yaml",
        [*words, "data.seq_length=4096", "training.precision=bf16"],
    )


@pytest.fixture
def smollm(checkpoint):
    tiny = read_architecture(checkpoint_folder.newest(checkpoint))
    shape = {
        "num_layers": 30,
        "hidden_size": 576,
        "ffn_hidden_size": 1536,
        "num_attention_heads": 9,
        "num_query_groups": 3,
        "kv_channels": 64,
    }
    return dataclasses.replace(
        tiny,
        vocab_size=49152,
        max_position_embeddings=8192,
        share_embeddings_and_output_weights=True,
        **shape,
    )


def test_the_line_of_readme_on_a_laptop(readme, smollm, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 22.0 * GIB)
    with pytest.raises(UsageError) as refused:
        host_memory.check(smollm, readme, 8, 8)
    text = str(refused.value)
    assert (
        "the run needs about 58." in text
        and "where 22.0 GiB are free: 8 processes, one of them 7.3 GiB (weights 0.3" in text
    )
    words = text.split("It fits with ")[1].split(";")[0].split()
    number = int(words[1]) if words[0] == "--nproc-per-node" else 8
    smaller = load(
        Recipe,
        ROOT / "examples/demo/pretrain.yaml",
        [
            "parallel.num_layers_in_first_pipeline_stage=null",
            "parallel.pipeline_model_parallel_size=1",
            "data.seq_length=4096",
            "training.precision=bf16",
            *(word for word in words if "=" in word),
        ],
    )
    assert host_memory.machine_bytes(smollm, smaller, number, number) <= 22 * GIB
    forced = dataclasses.replace(
        readme, resilience=dataclasses.replace(readme.resilience, check_memory=False)
    )
    host_memory.check(smollm, forced, 8, 8)


def test_limits_of_control_groups(tmp_path):
    groups, own = tmp_path / "groups", tmp_path / "own"
    inner = groups / "user/job"
    inner.mkdir(parents=True)
    own.write_text("0::/user/job\n")
    assert list(host_memory._left_in_groups(groups, own)) == []
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("100\n")
    (groups / "user/memory.max").write_text("1000\n")
    (groups / "user/memory.current").write_text("700\n")
    (groups / "user/memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert list(host_memory._left_in_groups(groups, own)) == [500]
    old = groups / "memory/job"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("4096\n")
    (old / "memory.usage_in_bytes").write_text("96\n")
    own.write_text("4:cpu,cpuacct:/job\n3:memory:/job\n")
    assert list(host_memory._left_in_groups(groups, own)) == [4000]
    assert host_memory.available() > 0


def test_drivers_of_gpus_are_found(tmp_path):
    (tmp_path / "null").touch()
    assert not host_memory.may_have_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert host_memory.may_have_gpu(tmp_path)


def test_a_run_that_cannot_fit_is_refused_before_torch_is_imported(checkpoint, data, tmp_path):
    if host_memory.may_have_gpu():
        pytest.skip("on a machine with a GPU, PyTorch decides")
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(output=tmp_path / "out", checkpoint=checkpoint, data=data)
    )
    huge = ["training.micro_batch_size=100000000", "training.global_batch_size=100000000"]
    program = (
        "import sys; from galen import cli; from megatron_ext import pretrain\n"
        "try: cli.run(pretrain.main)\n"
        "finally: print('torch imported:', 'torch' in sys.modules)"
    )
    words = command("-c", program, "--nproc-per-node", 1, tmp_path / "r.yaml", *huge)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        last.startswith("error: the run needs about ")
        and "It fits with training.micro_batch_size=1;" in last
    )
    assert "torch imported: False" in done.stdout
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
