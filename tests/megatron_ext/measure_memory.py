"""Measures what two processes allocate under several layouts, beside what the planner says.

Prints a line of JSON for each.

Weights, gradients and optimizer state are the bytes of their tensors. Activations are the bytes
that autograd holds for the backward pass at the fullest moment of a step, each storage once,
without the weights.
"""

import dataclasses
import json

import torch
from megatron.core import parallel_state

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.planner import experts, memory_model
from megatron_ext.pretrain import build_model_chunks
from megatron_ext.training.optimizer import build_optimizer, wrap_model
from megatron_ext.training.train_step import TrainStep

SHAPE = Architecture(
    family="llama",
    num_layers=4,
    hidden_size=128,
    ffn_hidden_size=320,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=32,
    vocab_size=500,
    max_position_embeddings=256,
    rotary_base=10000.0,
    layernorm_epsilon=1e-5,
    share_embeddings_and_output_weights=False,
)
# The list of tensors that a layer keeps on a CPU was made by looking at these ...
LAYOUTS = {
    "DP2": {},
    "TP2": {"tensor_model_parallel_size": 2},
    "TP2 SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2": {"pipeline_model_parallel_size": 2},
    "PP2 VP2": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    "PP2 uneven": {"pipeline_model_parallel_size": 2, "num_layers_in_first_pipeline_stage": 3},
    "TP2 SP bf16": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
}
# ... and not at these.
OTHER_SHAPE = dataclasses.replace(
    SHAPE,
    num_layers=6,
    hidden_size=192,
    ffn_hidden_size=768,
    num_attention_heads=12,
    num_query_groups=2,
    kv_channels=24,
    vocab_size=900,
    share_embeddings_and_output_weights=True,
)
UNGATED = dataclasses.replace(SHAPE, activation="relu2", gated_mlp=False)
NORM_AFTER = dataclasses.replace(SHAPE, norm_placement="after")
EXPERTS = dataclasses.replace(
    SHAPE, num_moe_experts=8, moe_router_topk=3, moe_ffn_hidden_size=96, qk_layernorm=True
)
SHARED_EXPERT = dataclasses.replace(EXPERTS, moe_shared_expert_intermediate_size=160)
GEMMA = dataclasses.replace(
    SHAPE,
    activation="gelu_pytorch_tanh",
    layernorm_zero_centered_gamma=True,
    norm_placement="both",
    qk_layernorm=True,
    scale_embeddings=True,
    softmax_scale=0.2,
    share_embeddings_and_output_weights=True,
)
GPT_OSS = dataclasses.replace(
    EXPERTS,
    qk_layernorm=False,
    add_qkv_bias=True,
    add_bias_linear=True,
    softmax_type="learnable",
    activation="quick_gelu",
    glu_linear_offset=1.0,
    activation_func_clamp_value=7.0,
    window_size=32,
    window_attn_skip_freq=(1, 0, 1, 0),
)
OLMO = dataclasses.replace(
    SHAPE,
    full_width_qk_norm=True,
    norm_placement="after",
    window_size=32,
    window_attn_skip_freq=(1, 1, 1, 0),
)
SHAPES = {
    "gpt-oss": GPT_OSS,
    "olmo": OLMO,
    "other shape": OTHER_SHAPE,
    "ungated": UNGATED,
    "norm after": NORM_AFTER,
    "experts": EXPERTS,
    "shared expert": SHARED_EXPERT,
    "gemma": GEMMA,
}
HELD_OUT = {
    "experts, EP2 bf16": {"expert_model_parallel_size": 2, "precision": "bf16"},
    "experts, PP2 bf16": {"pipeline_model_parallel_size": 2, "precision": "bf16"},
    "experts, TP2 EP2": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "expert_model_parallel_size": 2,
        "expert_tensor_parallel_size": 1,
    },
    "experts, TP2 ETP2 bf16": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
    "experts, EP2, recompute": {
        "expert_model_parallel_size": 2,
        "recompute_granularity": "selective",
        "recompute_modules": ["moe"],
    },
    "shared expert, EP2": {"expert_model_parallel_size": 2},
    "gpt-oss, EP2 bf16": {"expert_model_parallel_size": 2, "precision": "bf16"},
    "olmo, TP2 SP bf16": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
    "ungated": {},
    "ungated, TP2 SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "norm after": {},
    "norm after, TP2 SP bf16": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
    "gemma, TP2 SP bf16": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
    "other shape": {},
    "other shape, PP2 VP3 bf16": {
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 3,
        "precision": "bf16",
    },
    "other shape, TP2 SP, micro-batch 1": {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "micro_batch_size": 1,
    },
    "CP2": {"context_parallel_size": 2},
    "PP2 VP2, unequal chunks": {
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
        "pipeline_model_parallel_layout": "Ett|t|t|L",
    },
    "bf16 gradients": {"precision": "bf16", "grad_reduce_in_bf16": True},
    "full recompute": {"recompute_granularity": "full"},
    "full recompute, groups of 2": {"recompute_granularity": "full", "recompute_num_layers": 2},
    "full recompute, block of 3": {
        "recompute_granularity": "full",
        "recompute_method": "block",
        "recompute_num_layers": 3,
    },
    "full recompute, PP2 VP2 block of 1": {
        "recompute_granularity": "full",
        "recompute_method": "block",
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "full recompute, PP2": {"recompute_granularity": "full", "pipeline_model_parallel_size": 2},
    "full recompute, TP2 SP bf16": {
        "recompute_granularity": "full",
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "precision": "bf16",
    },
    "selective recompute, MLP": {
        "recompute_granularity": "selective",
        "recompute_modules": ["mlp"],
    },
    "selective recompute, attention": {
        "recompute_granularity": "selective",
        "recompute_modules": ["core_attn"],
    },
}
_TRAINING = (
    "recompute_granularity",
    "recompute_num_layers",
    "recompute_method",
    "recompute_modules",
    "precision",
    "micro_batch_size",
)
_OPTIMIZER = ("grad_reduce_in_bf16",)


def recipe(options):
    training = {name: value for name, value in options.items() if name in _TRAINING}
    optimizer = {name: value for name, value in options.items() if name in _OPTIMIZER}
    others = (*_TRAINING, *_OPTIMIZER)
    parallel = {name: value for name, value in options.items() if name not in others}
    return Recipe(
        output="unused",
        model=Model(checkpoint="unused"),
        data=Data(train=["unused"], validation=["unused"], seq_length=128),
        training=Training(
            **{
                "train_iters": 1,
                "micro_batch_size": 2,
                "global_batch_size": 16,
                "precision": "fp32",
                **training,
            }
        ),
        optimizer=Optimizer(lr=1e-3, **optimizer),
        parallel=Parallel(**parallel),
    )


class Held:
    """Counts the bytes of storages that autograd holds, and their most."""

    def __init__(self, apart):
        self.apart, self.holders, self.now, self.most = apart, {}, 0, 0

    def pack(self, tensor):
        return Holder(self, tensor)

    def add(self, storage):
        key = storage.data_ptr()
        if key not in self.apart:
            self.holders[key] = self.holders.get(key, 0) + 1
            if self.holders[key] == 1:
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)

    def remove(self, key, size):
        if key not in self.apart:
            self.holders[key] -= 1
            if self.holders[key] == 0:
                self.now -= size


class Holder:
    def __init__(self, held, tensor):
        self.held, self.tensor = held, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        held.add(storage)

    def __del__(self):
        self.held.remove(self.key, self.size)


def batches(run):
    while True:
        shape = (run.training.micro_batch_size, run.data.seq_length)
        tokens = torch.randint(0, SHAPE.vocab_size, shape)
        positions = torch.arange(shape[1]).expand(shape).contiguous()
        yield {
            "tokens": tokens,
            "labels": tokens.clone(),
            "loss_mask": torch.ones(shape),
            "position_ids": positions,
        }


def measure(run, shape):
    platform = platforms.current_platform()
    parallel_groups.initialize(run.parallel, run.training.seed)
    model = wrap_model(build_model_chunks(platform, shape, run), run)
    optimizer = build_optimizer(model, run)
    parameters = []
    for chunk in model:
        parameters += chunk.parameters()
    held = Held({weight.untyped_storage().data_ptr() for weight in parameters})
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda holder: holder.tensor):
        TrainStep(platform, run, model).run(batches(run), memory_model.micro_batches(run, 2), [])
    optimizer.prepare_grads()
    state = optimizer_tensors(optimizer, copies=run.training.precision != "fp32")
    stage = parallel_state.get_pipeline_model_parallel_rank()
    planned = memory_model.stage_memory(shape, run, 2, stage, fused=False)
    # of what `logits` counts, autograd holds the logits themselves, and of each token two float32,
    # an int64 and a bool
    tokens = memory_model.micro_batch_tokens(run)
    logits_and_buffers = memory_model.logits_bytes(shape, run)["logits"] + 17 * tokens
    candidates = memory_model.peak_candidates(shape, run, 2, stage, fused=False)
    measured = {
        "parameters": sum(weight.numel() for weight in parameters),
        "weights": size(parameters),
        "gradients": size([weight.main_grad for weight in parameters]),
        "optimizer": size([tensor for tensor in state if tensor.numel() > 1]),
        "activations": held.most,
    }
    parallel_state.destroy_model_parallel()
    planned_activations = max(
        activations + (logits_and_buffers if logits else 0) for activations, logits in candidates
    )
    return {
        "stage": stage,
        "measured": measured,
        "planned": {**dataclasses.asdict(planned), "activations": planned_activations},
    }


def optimizer_tensors(optimizer, copies):
    """Return the tensors of the state, with `copies` also the optimizer's own weights.

    In fp32 these are the model's.
    """
    tensors = []
    for chained in optimizer.chained_optimizers:
        for state in chained.optimizer.state.values():
            tensors += state.values()
        if copies:
            for group in chained.optimizer.param_groups:
                tensors += group["params"]
    return tensors


def size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main(_):
    platforms.current_platform().init_distributed()
    experts.IMBALANCE = 1.0  # the ranks' mean
    for name, options in (LAYOUTS | HELD_OUT).items():
        result = measure(recipe(options), SHAPES.get(name.split(",")[0], SHAPE))
        line = json.dumps(
            {
                "layout": name,
                "held_out": name in HELD_OUT,
                "rank": torch.distributed.get_rank(),
                **result,
            }
        )
        print(line, flush=True)
    platforms.current_platform().leave_distributed()
