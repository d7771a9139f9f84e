"""Wraps the model for data parallelism and builds Megatron's distributed AdamW and its learning-rate schedule."""

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron_ext.model import LanguageModel
from megatron_ext.recipe import Recipe


def wrap_model(model: LanguageModel, recipe: Recipe) -> DistributedDataParallel:
    """Return the model in Megatron's data-parallel wrapper, gradients in fp32 and sharded over the replicas."""
    config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=recipe.parallel.overlap_grad_reduce,
        overlap_param_gather=recipe.parallel.overlap_param_gather,
        use_distributed_optimizer=True,
    )
    return DistributedDataParallel(config=model.config, ddp_config=config, module=model)


def build_optimizer(model: DistributedDataParallel, recipe: Recipe) -> MegatronOptimizer:
    """Return the distributed optimizer, its state allocated, and hook it into the pipeline schedule.

    The model's gradients are summed over the tokens of the whole global batch and divided by their number once.
    """
    options = recipe.optimizer
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=options.lr,
            min_lr=options.min_lr,
            weight_decay=options.weight_decay,
            adam_beta1=options.adam_beta1,
            adam_beta2=options.adam_beta2,
            adam_eps=options.adam_eps,
            clip_grad=options.clip_grad,
            bf16=recipe.training.precision == "bf16",
            params_dtype=model.config.params_dtype,
            use_distributed_optimizer=True,
            overlap_param_gather=recipe.parallel.overlap_param_gather,
        ),
        [model],
    )
    model.config.finalize_model_grads_func = finalize_model_grads
    model.config.grad_scale_func = optimizer.scale_loss
    if recipe.parallel.overlap_grad_reduce:
        model.config.no_sync_func = model.no_sync
    if recipe.parallel.overlap_param_gather:
        model.config.param_sync_func = model.start_param_sync
    _allocate_state(optimizer)
    return optimizer


def _allocate_state(optimizer: MegatronOptimizer) -> None:
    """Give PyTorch's AdamW its state before the first step: a checkpoint's layout is derived from it.

    Fused optimizers have a method for this which Megatron calls itself; PyTorch's allocates in its first step only.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        inner = part.optimizer
        if not isinstance(inner, torch.optim.AdamW):
            continue
        for group in inner.param_groups:
            for weight in group["params"]:
                inner.state[weight] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }


def build_scheduler(optimizer: MegatronOptimizer, recipe: Recipe) -> OptimizerParamScheduler:
    """Return the schedule; its unit is the sample, as in Megatron-LM, so that a change of batch size keeps its place."""
    options, training = recipe.optimizer, recipe.training
    samples = training.global_batch_size
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=options.lr,
        min_lr=options.min_lr,
        lr_warmup_steps=options.lr_warmup_iters * samples,
        lr_decay_steps=training.train_iters * samples,
        lr_decay_style=options.lr_decay_style,
        start_wd=options.weight_decay,
        end_wd=options.weight_decay,
        wd_incr_steps=training.train_iters * samples,
        wd_incr_style="constant",
    )
