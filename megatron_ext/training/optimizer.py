"""Wraps the model for data parallelism; builds Megatron's distributed AdamW and LR schedule."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.model.build import LanguageModel

# Megatron's names and types
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.uint8}


def data_parallel_config(recipe: Recipe) -> DistributedDataParallelConfig:
    """Return how gradients are reduced and weights gathered."""
    options = recipe.optimizer
    later: dict[str, Any] = {}
    patterns = options.ddp_param_name_patterns_for_fp32_local_accumulation
    if patterns:  # megatron-core 0.16 lacks the field
        later["param_name_patterns_for_fp32_local_accumulation"] = tuple(patterns)
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=options.gradients_dtype == "fp32",
        reduce_scatter_with_fp32_accumulation=options.ddp_reduce_scatter_with_fp32_accumulation,
        bucket_size=recipe.parallel.ddp_bucket_size,
        overlap_grad_reduce=recipe.parallel.overlap_grad_reduce,
        overlap_param_gather=recipe.parallel.overlap_param_gather,
        use_distributed_optimizer=True,
        check_for_nan_in_grad=recipe.resilience.check_for_nan_in_grad,
        fp8_param_gather=recipe.training.fp8_param_gather,
        **later,
    )


def optimizer_options(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of Megatron's OptimizerConfig that a recipe decides."""
    options = recipe.optimizer
    names = (
        "lr",
        "min_lr",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_eps",
        "clip_grad",
        "use_precision_aware_optimizer",
        "optimizer_cpu_offload",
        "overlap_cpu_optimizer_d2h_h2d",
    )
    types = ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")
    return {
        "optimizer": "adam",
        "bf16": recipe.training.precision == "bf16",
        "params_dtype": _DTYPES[recipe.training.precision],
        "use_distributed_optimizer": True,
        "overlap_param_gather": recipe.parallel.overlap_param_gather,
        "fp8_recipe": recipe.training.fp8_recipe if recipe.training.fp8_format else None,
        "optimizer_offload_fraction": (
            options.optimizer_offload_fraction if options.optimizer_cpu_offload else 0.0
        ),
        **{name: getattr(options, name) for name in names},
        **{name: _DTYPES[getattr(options, name)] for name in types},
    }


def wrap_model(model: Sequence[LanguageModel], recipe: Recipe) -> list[DistributedDataParallel]:
    """Return the model chunks in Megatron's data-parallel wrapper, with sharded gradients."""
    config = data_parallel_config(recipe)
    return [
        # with an interleaved pipeline the other chunks' gradients come early enough to go in one
        # bucket, as in Megatron-LM
        DistributedDataParallel(
            config=chunk.config, ddp_config=config, module=chunk, disable_bucketing=number > 0
        )
        for number, chunk in enumerate(model)
    ]


def build_optimizer(model: Sequence[DistributedDataParallel], recipe: Recipe) -> MegatronOptimizer:
    """Return the distributed optimizer, its state allocated, hooked into the pipeline schedule.

    Gradients are summed over the tokens of the global batch and divided by their number once.
    """
    optimizer = get_megatron_optimizer(
        OptimizerConfig(**optimizer_options(recipe)), list(model), use_gloo_process_groups=False
    )
    no_sync = [chunk.no_sync for chunk in model]
    for chunk in model:
        chunk.config.finalize_model_grads_func = finalize_model_grads
        chunk.config.grad_scale_func = optimizer.scale_loss
        if recipe.parallel.overlap_grad_reduce:
            chunk.config.no_sync_func = no_sync if len(model) > 1 else no_sync[0]
    _allocate_state(optimizer)
    _load_remainders(optimizer)
    _pad_gathered_state(optimizer)
    return optimizer


def _chained(optimizer: MegatronOptimizer) -> Sequence[Any]:
    """Return the optimizers that Megatron chains into one, or the one."""
    return getattr(optimizer, "chained_optimizers", [optimizer])


def prepare_grads(optimizer: MegatronOptimizer) -> float:
    """Pass the model's gradients to the optimizer; return their norm (collective)."""
    optimizer.prepare_grads()
    return float(optimizer.get_grad_norm())


def update(optimizer: MegatronOptimizer, grad_norm: float) -> None:
    """Clip the gradients of `prepare_grads` by their norm and update the weights (collective).

    The core's `step` prepares and measures the gradients itself, and updates the weights whatever
    their norm is.
    """
    for one in _chained(optimizer):
        weights = [] if getattr(one, "is_stub_optimizer", False) else one.get_parameters()
        if not weights:
            continue
        clip_grad_by_total_norm_fp32(
            weights,
            max_norm=one.config.clip_grad,
            total_norm=grad_norm,
            use_decoupled_grad=one.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8,
        )
    optimizer.step_with_ready_grads()


def _load_remainders(optimizer: MegatronOptimizer) -> None:
    """Make the precision-aware optimizer restorable (megatron-core 0.19.2, TE 2.20).

    For the fp32 copy of each bf16 weight, Transformer Engine (TE) keeps the lower 16 bits as an
    integer. Megatron stores these integers in float32, which holds them exactly, and returns them
    so; Transformer Engine takes only integers.
    """
    for one in _chained(optimizer):
        if getattr(one.optimizer, "store_param_remainders", False):
            one.optimizer.set_scaled_state = partial(_set_state, one.optimizer.set_scaled_state)


def _set_state(original: Callable, weight: torch.Tensor, name: str, state: torch.Tensor) -> None:
    remainder = name == "master_param" and weight.dtype == torch.bfloat16
    original(weight, name, state.to(torch.int16) if remainder else state)


def _pad_gathered_state(optimizer: MegatronOptimizer) -> None:
    """Correct `fully_reshardable` checkpoints of several buckets (megatron-core 0.16.1, 0.19.2).

    The core gathers the buckets without the padding at their ends, but takes each weight's state
    from its place in the padded buffer. Unless a bucket ends at a multiple of 128 numbers and of
    the data-parallel size, the weights of the buckets after it would get the state of others.
    """
    for one in _chained(optimizer):
        one.get_parameter_state_dp_zero = partial(
            _padded_state, one.buffers, one.get_parameter_state_dp_zero
        )


def _padded_state(buffers: Sequence[Any], gather: Callable, *options: Any, **named: Any) -> Any:
    """Return the gathered state of each buffer with the padding of its buckets."""
    state = gather(*options, **named)
    if state is None:
        return None
    for number, buffer in enumerate(buffers):
        for tensors in state[number].values():
            for name, value in tensors.items():
                if isinstance(value, torch.Tensor):
                    tensors[name] = _with_padding(buffer, value)
    return state


def _with_padding(buffer: Any, compact: torch.Tensor) -> torch.Tensor:
    """Return the state of a buffer, given that of its buckets without padding."""
    parts = torch.split(compact, [bucket.numel_unpadded for bucket in buffer.buckets])
    begin = 0
    is_padded = False
    for bucket in buffer.buckets:
        is_padded = is_padded or bucket.offset != begin
        begin += bucket.numel_unpadded
    if not is_padded:
        return compact
    padded = compact.new_zeros(buffer.numel)
    for bucket, part in zip(buffer.buckets, parts, strict=True):
        padded[bucket.offset : bucket.offset + len(part)] = part
    return padded


def _allocate_state(optimizer: MegatronOptimizer) -> None:
    """Give PyTorch's AdamW its state before the first step, and its fused kernel.

    A checkpoint's layout is derived from the state. Transformer Engine's optimizer has a method for
    it which Megatron calls itself; PyTorch's allocates in its first step only.
    """
    for one in _chained(optimizer):
        inner = one.optimizer
        if not isinstance(inner, torch.optim.AdamW):
            continue
        for group in inner.param_groups:
            group["fused"] = True
            for weight in group["params"]:
                inner.state[weight] = {
                    "step": torch.tensor(0.0, device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        one._set_main_param_and_optimizer_states = partial(
            _set_with_own_step, one, one._set_main_param_and_optimizer_states
        )


def _set_with_own_step(
    optimizer: Any, original: Callable, model_param: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    """Fix two faults of loading a distributed optimizer over PyTorch's own Adam.

    They are in megatron-core 0.16.1 and 0.19.2.

    Megatron keeps Adam's `step` in the parameter groups. On load it hands one tensor to all
    weights, so that each update of a weight advances the step of all, and then copies every key of
    the state, `step` included, from tensors that lack it (a KeyError). Here each weight gets a step
    of its own, and keeps it.
    """
    group, position = optimizer.model_param_group_index_map[model_param]
    state = optimizer.optimizer.state[optimizer.optimizer.param_groups[group]["params"][position]]
    if "step" in state:
        state["step"] = state["step"].clone()
        tensors = {"step": state["step"], **tensors}
    original(model_param, tensors)


def complete_groups(optimizer: MegatronOptimizer) -> None:
    """Fill in what a checkpoint of another Adam lacks.

    PyTorch's has no `bias_correction`, Transformer Engine's no `fused`.
    """
    for one in _chained(optimizer):
        for group in one.optimizer.param_groups:
            group |= one.optimizer.defaults | group


def synchronize_offloaded(optimizer: MegatronOptimizer) -> None:
    """Copy a restored state into the optimizers on host and GPU, where it is offloaded.

    The core does so for `fully_reshardable` checkpoints only.
    """
    for one in _chained(optimizer):
        if isinstance(one.optimizer, HybridDeviceOptimizer):
            one.optimizer._sync_hdo_state_to_sub_optimizers()


def build_scheduler(optimizer: MegatronOptimizer, recipe: Recipe) -> OptimizerParamScheduler:
    """Return the schedule.

    Its unit is the sample, as in Megatron-LM, so that a change of batch size keeps its position.
    """
    options = recipe.optimizer
    training = recipe.training
    samples = BatchSchedule(training).samples_after
    decay = options.lr_decay_iters or training.train_iters
    wsd_decay = None
    if options.lr_wsd_decay_iters is not None:
        wsd_decay = samples(decay) - samples(decay - options.lr_wsd_decay_iters)
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=options.lr,
        min_lr=options.min_lr,
        lr_warmup_steps=samples(options.lr_warmup_iters),
        lr_decay_steps=samples(decay),
        lr_decay_style=options.lr_decay_style,
        start_wd=options.weight_decay,
        end_wd=options.weight_decay,
        wd_incr_steps=samples(training.train_iters),
        wd_incr_style="constant",
        wsd_decay_steps=wsd_decay,
        lr_wsd_decay_style=options.lr_wsd_decay_style if wsd_decay else None,
    )
