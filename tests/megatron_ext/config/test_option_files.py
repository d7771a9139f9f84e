"""Mistakes in the files of tensor-parallel overlap and of NCCL show before the start."""

import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config import core_version, option_files
from megatron_ext.config.recipe import Recipe
from tests.conftest import ROOT
from tests.megatron_ext.config.test_recipe import TEXT

OVERLAP = [
    *("parallel.tensor_model_parallel_size=3", "parallel.sequence_parallel=true"),
    "parallel.tp_comm_overlap=true",
]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    return lambda *overrides: load(Recipe, tmp_path / "r.yaml", overrides)


@pytest.fixture
def check(recipe, tmp_path):
    """Check a recipe that names a file with a text, by its key."""

    def check_file(key, text):
        path = tmp_path / "options.yaml"
        path.write_text(text)
        overlap = OVERLAP if key == "tp_comm_overlap_cfg" else []
        option_files.check(recipe(*overlap, f"parallel.{key}={path}"))

    return check_file


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_the_shipped_overlap(precision):
    path = ROOT / f"examples/pretrain/tp_comm_overlap/h100_tp4_{precision}.yaml"
    options = option_files.read_overlap(str(path))
    assert options["qkv_wgrad"]["num_sm"] == 24
    assert options["fc2_fprop"]["method"] == {"bf16": "pipeline", "fp8": "ring_exchange"}[precision]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qkv_fprop: {aggregate: 1, num_sm: 2}", None),
        ("proj_fprop: {method: ring_exchange, num_splits: 0}", None),
        ("qkv: {num_sm: 2}", "qkv is no overlapped GEMM; known: qkv_fprop, proj_fprop"),
        ("proj_wgrad: {method: external}", "proj_wgrad is no overlapped GEMM"),
        ("qkv_fprop: {sm: 2}", "qkv_fprop.sm is unknown; known: method, num_sm"),
        ("qkv_fprop: {method: pipeline}", "qkv_fprop.method must be ring_exchange, not pipeline"),
        ("fc1_dgrad: {method: ring_exchange}", "fc1_dgrad.method must be bulk"),
        ("qkv_fprop: {num_sm: 0}", "num_sm must be a whole number of at least 1, not 0"),
        ("qkv_fprop: {num_sm: true}", "num_sm must be a whole number"),
        ("qkv_fprop: {aggregate: no}", "aggregate must be true or false, not no"),
        ("qkv_fprop: {method: [a]}", r"method must be ring_exchange, not \['a'\]"),
        ("qkv_fprop: {atomic_gemm: true}", "experimental"),
        ("qkv_fprop: ring_exchange", "qkv_fprop must be a mapping of options"),
        ("- a", "is a mapping of keys to values"),
        ("qkv_fprop: {num_sm: 1}\nqkv_fprop: {num_sm: 2}", "'qkv_fprop' is given twice"),
        ("", "must be a mapping of names to options"),
        ("a: [", "line"),
    ],
)
def test_overlap(check, text, message):
    if message is None:
        check("tp_comm_overlap_cfg", text)
        return
    with pytest.raises(UsageError, match=message) as error:
        check("tp_comm_overlap_cfg", text)
    assert "parallel.tp_comm_overlap_cfg" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dp_cp: {min_ctas: 1, max_ctas: 16, cga_cluster_size: 2}\ntp: {net_name: IB}", None),
        ("tp: {is_high_priority_stream: true}", None),
        ("data: {max_ctas: 16}", "data is no process group; known: cp, dp, dp_cp"),
        ("dp: {ctas: 16}", "dp.ctas is unknown; known: min_ctas"),
        ("dp: {max_ctas: '16'}", "max_ctas must be a whole number"),
        ("dp: {min_ctas: 17, max_ctas: 16}", "min_ctas must not exceed max_ctas"),
        ("dp: {net_name: ethernet}", "net_name must be IB or socket"),
        ("dp: {is_high_priority_stream: 2}", "must be true or false"),
    ],
)
def test_communicators(check, text, message):
    if message is None:
        check("nccl_communicator_config_path", text)
        return
    with pytest.raises(UsageError, match=message) as error:
        check("nccl_communicator_config_path", text)
    assert "parallel.nccl_communicator_config_path" in str(error.value)


def test_a_missing_file(recipe):
    run = recipe("parallel.nccl_communicator_config_path=none.yaml")
    with pytest.raises(UsageError, match=r"config_path: none\.yaml does not exist"):
        option_files.check(run)


LATER = {
    "optimizer.ddp_param_name_patterns_for_fp32_local_accumulation": [
        "optimizer.grad_reduce_in_bf16=true",
        "optimizer.ddp_param_name_patterns_for_fp32_local_accumulation=[all]",
    ],
    "training.fine_grained_activation_offloading": [
        "training.fine_grained_activation_offloading=true",
        "training.offload_modules=[qkv_linear]",
    ],
}


@pytest.mark.parametrize("version", ["0.16.1", "0.19.2"])
@pytest.mark.parametrize("key", LATER)
def test_an_option_of_a_later_core(recipe, monkeypatch, version, key):
    monkeypatch.setattr("importlib.metadata.version", {"megatron-core": version}.get)
    core_version.check(recipe())
    run = recipe(*LATER[key])
    if version == "0.19.2":
        core_version.check(run)
        return
    message = rf"{key} needs megatron-core 0\.19 or later .* this is 0\.16\.1"
    with pytest.raises(UsageError, match=message):
        core_version.check(run)
