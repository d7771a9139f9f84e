import builtins

import pytest
import torch

from benchmarks import gpu_environment


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_reported(capsys):
    with pytest.raises(SystemExit) as end:
        gpu_environment.main()
    assert end.value.code == 2
    assert f"PyTorch {torch.__version__} finds no usable GPU: " in capsys.readouterr().err


def test_missing_packages_are_reported_with_install_advice(monkeypatch):
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
        gpu_environment.environment()
