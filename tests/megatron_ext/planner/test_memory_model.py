"""The planner's memory beside what two processes really allocate under several layouts."""

import json

import pytest


@pytest.fixture(scope="module")
def measurements(start_forked):
    codes, written = start_forked(2, module="tests.megatron_ext.measure_memory").wait()
    assert codes == [0, 0], written[-3000:]
    layouts = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert len(layouts) == 46  # 23 layouts, two ranks
    return layouts


@pytest.mark.multiprocess
def test_weights_gradients_and_optimizer_are_exact(measurements):
    for one in measurements:
        for name in ("parameters", "weights", "gradients", "optimizer"):
            # Megatron cuts the state among replicas at multiples of 64 weights, of 8 bytes each
            slack = 512 if name == "optimizer" else 0
            assert abs(one["measured"][name] - one["planned"][name]) <= slack, (
                one["layout"],
                one["rank"],
                name,
            )


@pytest.mark.multiprocess
def test_activations(measurements):
    """Autograd's peak memory, for the layouts that the model was made with and for others."""
    for one in measurements:
        ratio = one["measured"]["activations"] / one["planned"]["activations"]
        assert ratio == pytest.approx(1, abs=0.02 if one["held_out"] else 0.002), (
            one["layout"],
            one["rank"],
        )
