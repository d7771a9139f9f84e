"""Where the shards of the weights are in the buckets of the optimizer."""

import dataclasses

import pytest
import torch
from megatron.core import parallel_state

from galen.recipe import load
from megatron_ext.checkpoint import optimizer_buckets
from megatron_ext.checkpoint.optimizer_buckets import ModelSpace
from megatron_ext.checkpoint.sharded import ShardedWriter
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.model.build import build_model
from megatron_ext.training import optimizer as optimizers
from megatron_ext.training import training_state
from tests.megatron_ext.config.test_recipe import SHAPE as SMOLLM2
from tests.megatron_ext.config.test_recipe import TEXT

# the norms leave padding at the end of a bucket: 40 is no multiple of 128
SHAPE = dataclasses.replace(
    SMOLLM2,
    num_layers=3,
    hidden_size=40,
    ffn_hidden_size=56,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=10,
    vocab_size=128,
)


@pytest.fixture
def state(tmp_path, monkeypatch, group_of_one):
    """A model with tied embeddings and its optimizer, whose state is in several buckets."""
    (tmp_path / "r.yaml").write_text(TEXT)
    recipe = load(Recipe, tmp_path / "r.yaml", ["training.precision=fp32"])
    config = optimizers.data_parallel_config(recipe)
    config = dataclasses.replace(config, overlap_grad_reduce=True, bucket_size=10_000)
    monkeypatch.setattr(optimizers, "data_parallel_config", lambda _: config)
    platform = platforms.current_platform()
    parallel_groups.initialize(Parallel(), seed=1)
    model = optimizers.wrap_model([build_model(platform, SHAPE, 16)], recipe)
    optimizer = optimizers.build_optimizer(model, recipe)
    inner = optimizer.chained_optimizers[0].optimizer
    for group in inner.param_groups:
        group["step"] = 3.0
        for weight in group["params"]:
            for tensor in (weight.data, *inner.state[weight].values()):
                if tensor.numel() > 1:
                    tensor.normal_()
    yield training_state.TrainState(model=model, optimizer=optimizer, scheduler=None)
    parallel_state.destroy_model_parallel()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_both_formats_hold_the_same_numbers(tmp_path, state):
    slices = training_state.find_slices(state)
    assert len({one.bucket for one in slices}) > 2
    folders = {}
    for optimizer_format in ("dp_reshardable", "fully_reshardable"):
        folders[optimizer_format] = tmp_path / optimizer_format
        folders[optimizer_format].mkdir()
        saved = training_state.sharded_state(state, False, optimizer_format, with_random=False)
        ShardedWriter().save(saved, folders[optimizer_format])
    optimizer_buckets.write(folders["dp_reshardable"], slices)
    assert optimizer_buckets.read(folders["dp_reshardable"]) == slices
    space = ModelSpace(TorchDist(folders["dp_reshardable"]), slices)
    expected = TorchDist(folders["fully_reshardable"])
    names = {name for name in expected.tensors if name.startswith("optimizer.")}
    assert space.tensors.keys() == names
    for (name, offset), (_, one) in space.parts.items():
        complete = expected.rows(name, (), 0, one.shape[0])
        for axis, (begin, length) in enumerate(zip(offset, one.size, strict=True)):
            complete = complete.narrow(axis, begin, length)
        part = space.read(name, offset, (0,) * len(offset), one.size)
        assert part.equal(complete), (name, offset)
    assert space.common() == expected.common()["optimizer"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_equal_states_give_equal_files(tmp_path, state):
    """The core fills the gaps between the weights with uninitialized memory."""
    contents = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        held = [torch.full((2**18,), float(number + 1)) for _ in range(8)]
        del held  # memory for the gaps
        saved = training_state.sharded_state(state, False, "dp_reshardable", with_random=False)
        ShardedWriter().save(saved, folder)
        contents.append({path.name: path.read_bytes() for path in folder.glob("*.distcp")})
    assert contents[0] == contents[1]
