import builtins

import pytest
import torch

from benchmarks import gpu_environment


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_reported():
    with pytest.raises(gpu_environment.Missing) as error:
        gpu_environment.environment("cuda")
    assert f"PyTorch {torch.__version__} finds no usable GPU: " in str(error.value)
    assert "--platform cpu" in str(error.value)


def test_all_missing_packages_are_reported_at_once(monkeypatch):
    names = {"not_a_module": "one", "nor_this": "two", "torch": "torch"}
    monkeypatch.setattr(gpu_environment, "PACKAGES", names)
    with pytest.raises(gpu_environment.Missing, match=r"not installed: one, two\n.*requirements"):
        gpu_environment.environment("cpu")


def test_packages_that_do_not_load_are_reported_with_install_advice(monkeypatch):
    original = builtins.__import__

    def without_megatron(name, *rest):
        if name.startswith("megatron"):
            raise ModuleNotFoundError("No module named 'megatron'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_megatron)
    with pytest.raises(
        gpu_environment.Missing,
        match=r"(?s)No module named 'megatron'.*requirements-gpu\.txt.*Dockerfile",
    ):
        gpu_environment.environment("cpu")
