"""The checks of a recipe alone that Megatron-LM makes and Megatron Core does not.

Megatron-LM makes them in its argument parser. They raise ValueError, which says what to change and
gets the file and the line on its way up. Checks that also need the model and the number of
processes are in `layout_checks`.
"""

from megatron_ext.config.sections import Data, Optimizer, Parallel, Training


def check_data(data: Data, training: Training) -> None:
    """Check that there is something to read, and that later blends name sources that exist."""
    if bool(data.train) == bool(data.sources):
        raise ValueError(
            "data needs either data.train (with data.validation) or data.sources, and not both"
        )
    if data.sources and data.validation:
        raise ValueError(
            "with data.sources, validation files stand in data.sources.NAME.validation"
        )
    if training.eval_iters and not data.validation_prefixes:
        raise ValueError(
            "there are no validation files; name some, or set training.eval_iters to 0"
        )
    if data.sources:
        for kind in ("train", "validation") if training.eval_iters else ("train",):
            if not any(source.weight for source in data.sources.values() if getattr(source, kind)):
                raise ValueError(f"data.sources: all sources with {kind} files have the weight 0")
    before = 0
    for number, phase in enumerate(data.phases):
        where = f"data.phases.{number}"
        if unknown := sorted(set(phase.weights) - set(data.sources)):
            raise ValueError(
                f"{where}.weights names {unknown[0]!r}, which is not in data.sources"
                f" ({', '.join(data.sources) or 'none'})"
            )
        if not phase.weights or min(phase.weights.values()) <= 0:
            raise ValueError(
                f"{where}.weights must be above 0; leave a source out that is not wanted any more"
            )
        if phase.start_step <= before:
            raise ValueError(
                f"{where}.start_step ({phase.start_step}) must be more than the one before it"
                f" ({before})"
            )
        if phase.start_step >= training.train_iters:
            raise ValueError(
                f"{where}.start_step ({phase.start_step}) must be less than training.train_iters"
                f" ({training.train_iters})"
            )
        before = phase.start_step


def check_parallel(parallel: Parallel, training: Training) -> None:
    """Check which ways of spreading need which others."""
    if parallel.sequence_parallel and parallel.tensor_model_parallel_size == 1:
        raise ValueError(
            "parallel.sequence_parallel needs parallel.tensor_model_parallel_size of at least 2;"
            " set it to false"
        )
    if parallel.tp_comm_overlap and not parallel.sequence_parallel:
        raise ValueError(
            "parallel.tp_comm_overlap needs parallel.sequence_parallel; set it to true, or"
            " tp_comm_overlap to false"
        )
    if parallel.tp_comm_overlap and training.precision != "bf16":
        raise ValueError(
            "parallel.tp_comm_overlap needs training.precision: bf16, the type of its buffers"
        )
    if parallel.overlap_param_gather and not parallel.overlap_grad_reduce:
        raise ValueError(
            "parallel.overlap_param_gather needs parallel.overlap_grad_reduce; set both to true"
        )
    if parallel.virtual_pipeline_model_parallel_size and parallel.pipeline_model_parallel_size == 1:
        raise ValueError(
            "parallel.virtual_pipeline_model_parallel_size needs"
            " parallel.pipeline_model_parallel_size of at least 2"
        )


def check_precision(training: Training, optimizer: Optimizer) -> None:
    """Check FP8, recompute and the optimizer's types."""
    if training.fp8_format is None:
        for name in ("fp8_param_gather", "first_last_layers_bf16"):
            if getattr(training, name):
                raise ValueError(f"training.{name} needs training.fp8_format (hybrid or e4m3)")
    elif training.precision != "bf16":
        raise ValueError(
            "training.fp8_format needs training.precision: bf16, for what is not computed in FP8"
        )
    if training.fp8_param_gather and training.fp8_recipe == "mxfp8":
        raise ValueError(
            "training.fp8_param_gather with fp8_recipe: mxfp8 is not supported here yet; set it to"
            " false"
        )
    if training.fp8_format and training.fp8_recipe == "delayed":
        if training.first_last_layers_bf16:
            raise ValueError(
                "training.first_last_layers_bf16 does not go with fp8_recipe: delayed; take"
                " tensorwise or blockwise"
            )
        if "layernorm" in (training.recompute_modules or []):
            raise ValueError(
                "recomputing layernorm does not go with fp8_recipe: delayed; take tensorwise or"
                " blockwise"
            )
    if training.recompute_granularity != "full" and (
        training.recompute_method or training.recompute_num_layers
    ):
        raise ValueError(
            "training.recompute_method and recompute_num_layers need"
            " training.recompute_granularity: full"
        )
    if training.recompute_granularity != "selective" and training.recompute_modules:
        raise ValueError(
            "training.recompute_modules needs training.recompute_granularity: selective"
        )
    types = ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")
    changed = [name for name in types if getattr(optimizer, name) != "fp32"]
    if changed and not optimizer.use_precision_aware_optimizer:
        raise ValueError(f"optimizer.{changed[0]} needs optimizer.use_precision_aware_optimizer")
    if optimizer.use_precision_aware_optimizer and training.precision != "bf16":
        raise ValueError("optimizer.use_precision_aware_optimizer needs training.precision: bf16")
    if optimizer.optimizer_cpu_offload and not optimizer.use_precision_aware_optimizer:
        raise ValueError(
            "optimizer.optimizer_cpu_offload needs optimizer.use_precision_aware_optimizer; set it"
            " to true"
        )
    if optimizer.use_precision_aware_optimizer and training.fp8_param_gather:
        _check_master_weights(training, optimizer)
    if optimizer.overlap_cpu_optimizer_d2h_h2d and not optimizer.optimizer_cpu_offload:
        raise ValueError(
            "optimizer.overlap_cpu_optimizer_d2h_h2d needs optimizer.optimizer_cpu_offload"
        )


def _check_master_weights(training: Training, optimizer: Optimizer) -> None:
    """Check that Megatron makes the optimizer's copy of FP8 weights, of what was imported.

    Where it leaves this to Transformer Engine's FusedAdam or to the optimizer on the host
    (`OptimizerConfig.__post_init__` of megatron-core:
    use_precision_aware_optimizer_no_fp8_or_ds_fp8), the copy is made of the weights as rounded to
    FP8 (Transformer Engine 2.20, FusedAdam.initialize_state), or, of other recipes' weights than
    `delayed`, cannot be made.
    """
    wrong = {
        "training.fp8_recipe: delayed": training.fp8_recipe == "delayed",
        f"optimizer.main_params_dtype: {optimizer.main_params_dtype}": (
            optimizer.main_params_dtype != "fp32"
        ),
        "optimizer.optimizer_cpu_offload": optimizer.optimizer_cpu_offload,
    }
    if found := [name for name, there in wrong.items() if there]:
        raise ValueError(
            "optimizer.use_precision_aware_optimizer and training.fp8_param_gather do not go with"
            f" {' and '.join(found)}: the optimizer would start from the weights as rounded to FP8;"
            " set training.fp8_param_gather to false, or take training.fp8_recipe: tensorwise or"
            " blockwise, optimizer.main_params_dtype: fp32 and no optimizer_cpu_offload"
        )


def check_batches(training: Training) -> None:
    """Check that the ramp of the batch size ends at the batch size."""
    if training.rampup_batch_size is None:
        return
    start, increment, samples = training.rampup_batch_size
    if min(start, increment, samples) < 1 or start >= training.global_batch_size:
        raise ValueError(
            "training.rampup_batch_size = [start, increment, samples] ="
            f" {list(training.rampup_batch_size)}: all must be at least 1, and start less than"
            f" training.global_batch_size ({training.global_batch_size})"
        )
    if (training.global_batch_size - start) % increment:
        raise ValueError(
            f"training.rampup_batch_size: from {start} by {increment} one does not get to"
            f" training.global_batch_size ({training.global_batch_size}); the difference must be a"
            " multiple of the increment"
        )


def check_intervals(training: Training) -> None:
    """Check that the checkpoints that are kept for ever are written at all."""
    if (
        training.keep_every_n_steps is not None
        and training.keep_every_n_steps % training.save_interval
    ):
        raise ValueError(
            f"training.keep_every_n_steps ({training.keep_every_n_steps}) must be a multiple of"
            f" training.save_interval ({training.save_interval})"
        )


def check_schedule(optimizer: Optimizer, training: Training) -> None:
    """Check that warm-up, decay and end of the learning rate come one after the other."""
    decay = optimizer.lr_decay_iters or training.train_iters
    if optimizer.lr_warmup_iters >= decay:
        name = (
            "training.train_iters"
            if optimizer.lr_decay_iters is None
            else "optimizer.lr_decay_iters"
        )
        raise ValueError(
            f"optimizer.lr_warmup_iters ({optimizer.lr_warmup_iters}) must be less than {name}"
            f" ({decay})"
        )
    if optimizer.min_lr > optimizer.lr:
        raise ValueError(
            f"optimizer.min_lr ({optimizer.min_lr}) must not exceed optimizer.lr ({optimizer.lr})"
        )
    if (optimizer.lr_decay_style == "WSD") != (optimizer.lr_wsd_decay_iters is not None):
        raise ValueError(
            "optimizer.lr_decay_style: WSD and optimizer.lr_wsd_decay_iters need each other"
        )
    if (
        optimizer.lr_wsd_decay_iters
        and optimizer.lr_warmup_iters + optimizer.lr_wsd_decay_iters > decay
    ):
        raise ValueError(
            f"optimizer.lr_warmup_iters + lr_wsd_decay_iters ({optimizer.lr_warmup_iters} +"
            f" {optimizer.lr_wsd_decay_iters}) are more than the {decay} steps of the schedule"
        )
