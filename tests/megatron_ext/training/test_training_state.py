"""How checkpoints and Transformer Engine work together.

Stand-ins take its place, since it is not installed where this runs.
"""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from megatron.core.dist_checkpointing.mapping import LocalNonpersistentObject, ShardedTensor

from galen import random_states
from galen.errors import DataError
from megatron_ext.training import training_state
from megatron_ext.training.optimizer import _load_remainders, complete_groups


class Fp8Model(torch.nn.Linear):
    """A model of one weight in FP8, with the states of a grouped GEMM of two experts."""

    def sharded_state_dict(self, metadata):
        return {"weight": None, "_extra_state": None, "_extra_state1": None}


def test_the_optimizer_of_weights_in_fp8_starts_from_what_was_loaded(monkeypatch):
    """TE keeps such a weight's initial value, for Megatron to make the optimizer's copy of."""
    layer, loaded, initial = Fp8Model(3, 2, bias=False), torch.randn(2, 3), torch.zeros(2, 3)
    layer.weight.get_high_precision_init_val = lambda: initial
    monkeypatch.setattr(
        training_state,
        "load_sharded",
        lambda state, _: {name: {"weight": loaded} for name in state},
    )
    training_state.load_weights_from(layer, "checkpoint")
    assert layer.weight.equal(loaded) and initial.equal(loaded)


@pytest.mark.parametrize(
    ("fp8", "recipe", "loading", "expected"),
    [
        # so that a run with PyTorch's layers can go on with Transformer Engine's
        (None, "delayed", True, {"weight"}),
        ("hybrid", "tensorwise", True, {"weight"}),
        ("hybrid", "delayed", True, {"weight", "_extra_state", "_extra_state1"}),
        (None, "delayed", False, {"weight", "_extra_state", "_extra_state1"}),
    ],
)
def test_fp8_history_is_loaded_only_with_delayed_scaling(fp8, recipe, loading, expected):
    layer = SimpleNamespace(
        config=SimpleNamespace(fp8=fp8, fp8_recipe=recipe), module=Fp8Model(3, 2)
    )
    optimizer = SimpleNamespace(sharded_state_dict=lambda *_, **__: {})
    run = training_state.TrainState(model=[layer], optimizer=optimizer, scheduler=None)
    state = training_state.sharded_state(run, loading, "fully_reshardable", with_random=False)
    assert state["model"].keys() == expected


class Planted:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


def test_transformer_engine_unpickles_what_was_pickled_here(monkeypatch):
    monkeypatch.delenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", raising=False)

    def state(**history):
        stored = torch.frombuffer(bytearray(pickle.dumps(history)), dtype=torch.uint8)
        return {
            "model": {
                "a._extra_state": torch.empty(0, dtype=torch.uint8),
                "b._extra_state": stored,
            },
            "optimizer": {},
        }

    with pytest.raises(
        DataError, match=r"b\._extra_state in iter_0000002 asks to run posix\.system"
    ):
        training_state._repickle_fp8_history(state(scale_fwd=Planted()), Path("iter_0000002"))
    assert "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE" not in os.environ
    history = {
        "scale_fwd": torch.ones(3),
        "amax_history_fwd": torch.zeros(4, 3),
        "extra_fp8_variables": {"fp8_checkpoint": True},
    }
    restored = state(**history)
    before = bytes(restored["model"]["b._extra_state"].numpy())
    training_state._repickle_fp8_history(restored, Path("iter_0000002"))
    after = bytes(restored["model"]["b._extra_state"].numpy())
    assert os.environ["NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"] == "1"
    read = pickle.loads(after)
    assert read["scale_fwd"].equal(torch.ones(3)) and read["amax_history_fwd"].shape == (4, 3)
    assert read["extra_fp8_variables"] == {"fp8_checkpoint": True} and before
    monkeypatch.delenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE")


@pytest.mark.parametrize("position", [-1, 625, 10**6])
def test_an_invalid_position_in_the_random_stream_is_refused(position):
    """NumPy would read memory that is not its own."""
    states = random_states.get()
    name, keys, _, *rest = states["numpy"]
    with (
        pytest.raises(DataError, match=r"the random states in iter_2 are damaged"),
        random_states.restoring("iter_2"),
    ):
        random_states.restore({**states, "numpy": (name, keys, position, *rest)})


def test_random_states_are_restored_from_both_formats():
    states = random_states.get()
    drawn = numpy.random.random(3)
    random_states.restore(states)
    assert numpy.random.random(3).tolist() == drawn.tolist()
    name, keys, *rest = states["numpy"]
    # as earlier versions stored it
    random_states.restore({**states, "numpy": (name, keys.numpy().astype(numpy.uint32), *rest)})
    assert numpy.random.random(3).tolist() == drawn.tolist()


def test_groups_of_another_adam_are_completed():
    inner = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    del inner.param_groups[0]["amsgrad"]
    inner.param_groups[0]["lr"] = 0.25
    complete_groups(SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=inner)]))
    assert inner.param_groups[0]["amsgrad"] is False and inner.param_groups[0]["lr"] == 0.25


def test_remainders_of_weights_are_restored_as_integers():
    weight, taken = torch.zeros(2, dtype=torch.bfloat16), {}
    inner = SimpleNamespace(
        store_param_remainders=True,
        set_scaled_state=lambda _, name, state: taken.update({name: state}),
    )
    _load_remainders(SimpleNamespace(optimizer=inner))
    inner.set_scaled_state(weight, "master_param", torch.tensor([-32768.0, 32767.0]))
    inner.set_scaled_state(weight, "exp_avg", torch.tensor([0.5, 0.25]))
    assert (
        taken["master_param"].tolist() == [-32768, 32767]
        and taken["master_param"].dtype == torch.int16
    )
    assert taken["exp_avg"].dtype == torch.float32


def test_a_state_of_another_version_is_refused(tmp_path):
    folder = tmp_path / "iter_0000002"
    folder.mkdir()
    saved = {"progress": {"iteration": 2, "renamed": 1}, "layout": [1, 1, 1], "scheduler": {}}
    (folder / training_state.STATE).write_text(json.dumps(saved))
    with pytest.raises(DataError, match="has the unknown field 'renamed'; resume with the version"):
        training_state._saved(folder)
    del saved["progress"]["renamed"]
    (folder / training_state.STATE).write_text(json.dumps(saved))
    assert training_state._saved(folder) == saved


def test_padding_ends_with_its_bucket():
    """The core's extends to the end of a process's shard, and its save fails."""
    tensor = ShardedTensor(
        "bucket.param", torch.ones(12), torch.float32, (12,), (20,), (14,), None, (0, 0, 0)
    )
    part = {"param": tensor, "padding": LocalNonpersistentObject(True)}
    weight = {"param": tensor, "padding": LocalNonpersistentObject(False)}
    state = {"param_state": {0: {"float": [[part, weight]]}, "per_bucket_numel": None}}
    training_state._clear_padding(state)
    assert part["param"].data.tolist() == [0.0] * 6
    assert part["param"].local_shape == (6,)
    assert weight["param"] is tensor
