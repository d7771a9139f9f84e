"""The planner's speed beside published figures."""

import pytest

from megatron_ext.architecture import Architecture
from megatron_ext.gpu_kinds import KINDS
from megatron_ext.layout_search import estimate
from megatron_ext.recipe import Data, Model, Optimizer, Parallel, Recipe, Training


def llama3(layers, hidden, mlp, heads):
    return Architecture(
        family="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=mlp,
        num_attention_heads=heads,
        num_query_groups=8,
        kv_channels=128,
        vocab_size=128256,
        max_position_embeddings=8192,
        rotary_base=5e5,
        layernorm_epsilon=1e-5,
        share_embeddings_and_output_weights=False,
    )


def recipe(batch, fp8=True, length=8192, tensor=1, pipeline=1, virtual=None, context=1, **training):
    return Recipe(
        output="unused",
        model=Model(checkpoint="unused"),
        data=Data(train=["unused"], validation=["unused"], seq_length=length),
        training=Training(
            train_iters=23000, global_batch_size=batch, fp8_format="hybrid" if fp8 else None, fp8_recipe="tensorwise", **training
        ),
        optimizer=Optimizer(lr=1e-4),
        parallel=Parallel(
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=pipeline,
            virtual_pipeline_model_parallel_size=virtual,
            context_parallel_size=context,
            sequence_parallel=tensor > 1,
            tp_comm_overlap=tensor > 1,
            overlap_grad_reduce=True,
        ),
    )


# Published for H100: tokens/s/GPU, and model TFLOP/s/GPU over the bf16 peak. The layouts of 8B and 405B are not published with the
# figures: plain data parallelism, and the usual TP8 PP8 CP2 (with 128 layers in place of 126, so that they divide).
PUBLISHED = {
    "8B FP8": (llama3(32, 4096, 14336, 32), recipe(128), 8, 14451, 744 / 989),
    "70B FP8": (llama3(80, 8192, 28672, 64), recipe(128, tensor=4, pipeline=8, virtual=5), 64, 1664, 731 / 989),
    "405B FP8": (llama3(128, 16384, 53248, 128), recipe(512, tensor=8, pipeline=8, virtual=8, context=2), 1024, 328, 827 / 989),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_h100_in_fp8(name):
    architecture, run, gpus, tokens, mfu = PUBLISHED[name]
    found = estimate(architecture, run, gpus, KINDS["h100-80gb"])
    assert found.tokens_per_second_per_gpu == pytest.approx(tokens, rel=0.05)
    assert found.mfu == pytest.approx(mfu, rel=0.05)


def test_h100_in_bf16():
    """Megatron-LM's 47 to 48 % of the peak for large models."""
    found = estimate(llama3(80, 8192, 28672, 64), recipe(512, fp8=False, tensor=4, pipeline=8, virtual=5), 64, KINDS["h100-80gb"])
    assert 0.46 < found.mfu < 0.51


def test_meditron_70b_on_a100():
    """332 hours and 40,200 tokens/s on 128 A100-80GB: nothing of the model was fitted to them."""
    from megatron_ext.architecture import read

    run = recipe(512, fp8=False, length=4096, tensor=8, pipeline=8, micro_batch_size=2, recompute_granularity="selective")
    run.parallel.tp_comm_overlap = False
    found = estimate(read("examples/pretrain/architectures/meditron_70b.json"), run, 128, KINDS["a100-80gb"])
    assert found.tokens_per_second_per_gpu * 128 == pytest.approx(40200, rel=0.05)
    assert found.days * 24 == pytest.approx(332, rel=0.05)
    assert found.fits
