import json

import pytest

from tests.conftest import run


@pytest.mark.slow
def test_figures_are_consistent_on_a_cpu(tmp_path):
    output = tmp_path / "result.json"
    run(
        *("benchmarks/train_gpu.py", "--model", "tiny", "--precision", "fp32", "--layers", "2"),
        *("--warm-up", "1", "--steps", "2", "--output", output),
    )
    result = json.loads(output.read_text())
    assert result["model"]["num_layers"] == 2
    # ln 300 = 5.7 for random weights
    assert len(result["losses"]) == 3 and all(5 < loss < 7 for loss in result["losses"])
    assert result["tokens_per_second_per_gpu"] * result["seconds_per_step"] == pytest.approx(8 * 32)
    # no look-up; causal attention of 2 layers
    flops = 6 * (result["model"]["parameters"] - 300 * 64) + 6 * 2 * 64 * 32
    assert result["model_tflops_per_gpu"] * 1e12 == pytest.approx(
        flops * result["tokens_per_second_per_gpu"]
    )
