"""Checks of a recipe's values against each other.

Megatron-LM makes them in its argument parser; Megatron Core does not. They raise ValueError, to
which `galen.recipe` adds file and line. Checks that also need the model and the number of processes
are in `layout_checks`.
"""

from megatron_ext.config import pipeline_layout
from megatron_ext.config.run_sections import Profile
from megatron_ext.config.sections import Data, Optimizer, Parallel, Phase, Training


def check_data(data: Data, training: Training) -> None:
    """Check that there are files, and that phases name existing sources."""
    _check_files(data, training)
    previous_step = 0
    for number, phase in enumerate(data.phases):
        key = f"data.phases.{number}"
        _check_phase_weights(key, phase, data)
        if phase.start_step <= previous_step:
            raise ValueError(
                f"{key}.start_step ({phase.start_step}) must be more than the one before it"
                f" ({previous_step})"
            )
        if phase.start_step >= training.train_iters:
            raise ValueError(
                f"{key}.start_step ({phase.start_step}) must be less than training.train_iters"
                f" ({training.train_iters})"
            )
        previous_step = phase.start_step


def _check_files(data: Data, training: Training) -> None:
    if bool(data.train) == bool(data.sources):
        raise ValueError(
            "data needs either data.train (with data.validation) or data.sources, and not both"
        )
    if data.sources and data.validation:
        raise ValueError("with data.sources, set data.sources.NAME.validation, not data.validation")
    if training.eval_iters and not data.validation_prefixes:
        raise ValueError(
            "there are no validation files; name some, or set training.eval_iters to 0"
        )
    if not data.sources:
        return
    for split in ("train", "validation") if training.eval_iters else ("train",):
        weights = [source.weight for source in data.sources.values() if getattr(source, split)]
        if not any(weights):
            raise ValueError(f"data.sources: all sources with {split} files have weight 0")


def _check_phase_weights(key: str, phase: Phase, data: Data) -> None:
    """Check the weights of the phase at `key`."""
    unknown = sorted(set(phase.weights) - set(data.sources))
    if unknown:
        raise ValueError(
            f"{key}.weights names {unknown[0]!r}, which is not in data.sources"
            f" ({', '.join(data.sources) or 'none'})"
        )
    if not phase.weights or min(phase.weights.values()) <= 0:
        raise ValueError(f"{key}.weights must be above 0; omit sources that are no longer used")


def check_parallel(parallel: Parallel, training: Training) -> None:
    """Check dependencies among the kinds of parallelism and overlap."""
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
    # Transformer Engine 2.20, module/base.py: "Unsupported quantizer for Userbuffers"
    if parallel.tp_comm_overlap and training.fp8_format and training.fp8_recipe == "blockwise":
        raise ValueError(
            "parallel.tp_comm_overlap is incompatible with training.fp8_recipe: blockwise; set it"
            " to false, or use tensorwise"
        )
    if parallel.tp_comm_overlap_cfg is not None and not parallel.tp_comm_overlap:
        raise ValueError("parallel.tp_comm_overlap_cfg needs parallel.tp_comm_overlap: true")
    if parallel.ddp_bucket_size is not None and not parallel.overlap_grad_reduce:
        raise ValueError(
            "parallel.ddp_bucket_size needs parallel.overlap_grad_reduce: true, without which all"
            " gradients are reduced at once; set it to null"
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
    pipeline_layout.check(parallel)
    _check_context_parallel(parallel)


def _check_context_parallel(parallel: Parallel) -> None:
    """Check the communication of context parallelism."""
    context = parallel.context_parallel_size
    types = parallel.communication_types
    if types and context == 1:
        raise ValueError(
            "parallel.cp_comm_type needs parallel.context_parallel_size of at least 2; set it to"
            " null"
        )
    sizes = parallel.hierarchical_context_parallel_sizes
    if "a2a+p2p" in types:
        if sizes is None or min(sizes) < 2 or sizes[0] * sizes[1] != context:
            shown = None if sizes is None else list(sizes)
            raise ValueError(
                "parallel.cp_comm_type: a2a+p2p needs parallel.hierarchical_context_parallel_sizes:"
                " [exchange, ring], each at least 2, whose product is"
                f" parallel.context_parallel_size = {context}; it is {shown}"
            )
    elif sizes is not None:
        raise ValueError(
            "parallel.hierarchical_context_parallel_sizes needs parallel.cp_comm_type: a2a+p2p; set"
            " it to null"
        )


def chunks_per_document(parallel: Parallel) -> int:
    """Return the equal chunks into which context parallelism divides a document.

    A process holds two of them, one from the front and one from the back.
    """
    context = parallel.context_parallel_size
    return 2 * context if context > 1 else 1


def check_documents(data: Data, parallel: Parallel) -> None:
    """Check that documents can be packed, and padded as context parallelism needs them."""
    if data.packing_strategy == "bfd":
        if not data.reset_attention_mask:
            raise ValueError(
                "data.packing_strategy: bfd needs data.reset_attention_mask: true; set it to"
                " wrapped"
            )
        if data.instruction:
            raise ValueError(
                "data.packing_strategy: bfd packs documents; set it to wrapped with"
                " data.instruction, which never cuts a conversation that fits"
            )
    multiple = data.pad_documents_to_multiple_of
    if multiple is None:
        return
    key = "data.pad_documents_to_multiple_of"
    if not data.reset_attention_mask:
        raise ValueError(f"{key} needs data.reset_attention_mask: true; set it to null")
    chunks = chunks_per_document(parallel)
    if multiple % chunks:
        raise ValueError(
            f"{key} = {multiple} must be a multiple of 2 x parallel.context_parallel_size ="
            f" {chunks}: each process takes two equal chunks of a document"
        )
    if data.seq_length % multiple:
        raise ValueError(
            f"data.seq_length = {data.seq_length} must be a multiple of {key} = {multiple}"
        )


def check_attention(training: Training, parallel: Parallel) -> None:
    """Check that PyTorch's attention can communicate as asked."""
    if training.attention_backend == "local" and parallel.communication_types - {"all_gather"}:
        raise ValueError(
            "training.attention_backend: local supports parallel.cp_comm_type: all_gather only; set"
            " it to null, or use another backend"
        )


def check_determinism(training: Training, parallel: Parallel) -> None:
    """Check that nothing of a deterministic run depends on the order of parallel work.

    Megatron-LM refuses the same (megatron/training/determinism.py).
    """
    if not training.deterministic_mode:
        return
    settings = {
        "training.cross_entropy_loss_fusion": training.cross_entropy_loss_fusion,
        "parallel.tp_comm_overlap": parallel.tp_comm_overlap,
    }
    for key, is_set in settings.items():
        if is_set:
            raise ValueError(
                f"training.deterministic_mode is incompatible with {key}; set one of them to false"
            )


def check_precision(training: Training, optimizer: Optimizer) -> None:
    """Check FP8, the fused loss, recompute and the optimizer's types."""
    _check_fp8(training)
    if training.cross_entropy_loss_fusion and training.precision != "bf16":
        # the core rounds the gradient of the logits to bf16 (fusions/fused_cross_entropy.py)
        raise ValueError(
            "training.cross_entropy_loss_fusion needs training.precision: bf16, to which it rounds"
            " gradients; set it to false"
        )
    _check_recompute(training)
    _check_gradient_types(training, optimizer)
    _check_optimizer_types(training, optimizer)


def _check_fp8(training: Training) -> None:
    if training.fp8_format is None:
        for name in ("fp8_param_gather", "first_last_layers_bf16"):
            if getattr(training, name):
                raise ValueError(f"training.{name} needs training.fp8_format (hybrid or e4m3)")
        return
    if training.precision != "bf16":
        raise ValueError(
            "training.fp8_format needs training.precision: bf16, for what is not computed in FP8"
        )
    if training.fp8_param_gather and training.fp8_recipe == "mxfp8":
        raise ValueError(
            "training.fp8_param_gather with fp8_recipe: mxfp8 is not supported yet; set it to false"
        )
    if training.fp8_recipe == "delayed" and training.first_last_layers_bf16:
        raise ValueError(
            "training.first_last_layers_bf16 is incompatible with fp8_recipe: delayed; use"
            " tensorwise or blockwise"
        )


def _check_recompute(training: Training) -> None:
    full_options = training.recompute_method or training.recompute_num_layers
    if full_options and training.recompute_granularity != "full":
        raise ValueError(
            "training.recompute_method and recompute_num_layers need"
            " training.recompute_granularity: full"
        )
    selective = training.recompute_granularity == "selective"
    if training.recompute_modules and not selective:
        raise ValueError(
            "training.recompute_modules needs training.recompute_granularity: selective"
        )
    if selective and not training.recompute_modules:
        raise ValueError(
            "training.recompute_granularity: selective needs training.recompute_modules, for"
            " example [mlp]"
        )


def _check_gradient_types(training: Training, optimizer: Optimizer) -> None:
    key = "optimizer.grad_reduce_in_bf16"
    if optimizer.grad_reduce_in_bf16:
        if training.precision != "bf16":
            raise ValueError(f"{key} needs training.precision: bf16; set it to false")
        if optimizer.use_precision_aware_optimizer:
            raise ValueError(
                f"{key} is incompatible with optimizer.use_precision_aware_optimizer; set"
                " optimizer.main_grads_dtype: bf16 instead"
            )
    patterns = optimizer.ddp_param_name_patterns_for_fp32_local_accumulation
    if patterns and not optimizer.grad_reduce_in_bf16:
        raise ValueError(
            "optimizer.ddp_param_name_patterns_for_fp32_local_accumulation needs"
            f" {key}: true; without it all gradients are accumulated in"
            f" {optimizer.main_grads_dtype}; set it to []"
        )
    in_fp32 = optimizer.ddp_reduce_scatter_with_fp32_accumulation
    if in_fp32 and optimizer.gradients_dtype == "fp32":
        raise ValueError(
            f"optimizer.ddp_reduce_scatter_with_fp32_accumulation needs bf16 gradients ({key}, or"
            " main_grads_dtype: bf16); fp32 gradients are added in fp32 without it; set it to false"
        )


def _check_optimizer_types(training: Training, optimizer: Optimizer) -> None:
    if not optimizer.use_precision_aware_optimizer:
        for name in ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"):
            if getattr(optimizer, name) != "fp32":
                raise ValueError(f"optimizer.{name} needs optimizer.use_precision_aware_optimizer")
        if optimizer.optimizer_cpu_offload:
            raise ValueError(
                "optimizer.optimizer_cpu_offload needs optimizer.use_precision_aware_optimizer;"
                " set it to true"
            )
    elif training.precision != "bf16":
        raise ValueError("optimizer.use_precision_aware_optimizer needs training.precision: bf16")
    elif training.fp8_param_gather:
        _check_master_weights(training, optimizer)
    if optimizer.overlap_cpu_optimizer_d2h_h2d and not optimizer.optimizer_cpu_offload:
        raise ValueError(
            "optimizer.overlap_cpu_optimizer_d2h_h2d needs optimizer.optimizer_cpu_offload"
        )


def _check_master_weights(training: Training, optimizer: Optimizer) -> None:
    """Check that Megatron makes the optimizer's copy of FP8 weights from the imported weights.

    Where it leaves this to Transformer Engine's FusedAdam or to the optimizer on the host
    (`OptimizerConfig.__post_init__` of megatron-core:
    use_precision_aware_optimizer_no_fp8_or_ds_fp8), the copy is made of the weights as rounded to
    FP8 (Transformer Engine 2.20, FusedAdam.initialize_state), or, of other recipes' weights than
    `delayed`, cannot be made.
    """
    incompatible = {
        "training.fp8_recipe: delayed": training.fp8_recipe == "delayed",
        f"optimizer.main_params_dtype: {optimizer.main_params_dtype}": (
            optimizer.main_params_dtype != "fp32"
        ),
        "optimizer.optimizer_cpu_offload": optimizer.optimizer_cpu_offload,
    }
    settings = [name for name, is_set in incompatible.items() if is_set]
    if settings:
        raise ValueError(
            "optimizer.use_precision_aware_optimizer and training.fp8_param_gather are incompatible"
            f" with {' and '.join(settings)}: the optimizer would start from the weights as rounded"
            " to FP8; set training.fp8_param_gather to false, or use training.fp8_recipe:"
            " tensorwise or blockwise, optimizer.main_params_dtype: fp32 and no"
            " optimizer_cpu_offload"
        )


def check_batches(training: Training) -> None:
    """Check that the batch size ramp-up ends at the batch size."""
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
            f"training.rampup_batch_size: from {start} in steps of {increment}, it does not reach"
            f" training.global_batch_size ({training.global_batch_size}); the difference must be a"
            " multiple of the increment"
        )


def check_profile(profile: Profile | None, training: Training) -> None:
    """Check that the profiled steps exist, and that no option of the profiler is without effect."""
    if profile is None:
        return
    first, last = profile.steps
    if not 1 <= first <= last <= training.train_iters:
        raise ValueError(
            f"profile.steps = [{first}, {last}] must be [first, last] with 1 <= first <= last <="
            f" training.train_iters ({training.train_iters})"
        )
    for name in ("record_shapes", "with_stack"):
        if getattr(profile, name) and not profile.use_pytorch_profiler:
            raise ValueError(f"profile.{name} needs profile.use_pytorch_profiler: true")


def check_intervals(training: Training) -> None:
    """Check that the permanently kept checkpoints are written."""
    if (
        training.keep_every_n_steps is not None
        and training.keep_every_n_steps % training.save_interval
    ):
        raise ValueError(
            f"training.keep_every_n_steps ({training.keep_every_n_steps}) must be a multiple of"
            f" training.save_interval ({training.save_interval})"
        )


def check_schedule(optimizer: Optimizer, training: Training) -> None:
    """Check that warm-up, decay and end of the learning rate follow each other."""
    decay = optimizer.lr_decay_iters or training.train_iters
    if optimizer.lr_warmup_iters >= decay:
        name = "optimizer.lr_decay_iters"
        if optimizer.lr_decay_iters is None:
            name = "training.train_iters"
        raise ValueError(
            f"optimizer.lr_warmup_iters ({optimizer.lr_warmup_iters}) must be less than {name}"
            f" ({decay}); set optimizer.lr_warmup_iters to at most {decay - 1}, or {name} to at"
            f" least {optimizer.lr_warmup_iters + 1}"
        )
    if optimizer.min_lr > optimizer.lr:
        raise ValueError(
            f"optimizer.min_lr ({optimizer.min_lr}) must not exceed optimizer.lr ({optimizer.lr})"
        )
    if (optimizer.lr_decay_style == "WSD") != (optimizer.lr_wsd_decay_iters is not None):
        raise ValueError(
            "optimizer.lr_decay_style: WSD and optimizer.lr_wsd_decay_iters need each other"
        )
    wsd_decay = optimizer.lr_wsd_decay_iters or 0
    if wsd_decay and optimizer.lr_warmup_iters + wsd_decay > decay:
        raise ValueError(
            f"optimizer.lr_warmup_iters + lr_wsd_decay_iters ({optimizer.lr_warmup_iters} +"
            f" {optimizer.lr_wsd_decay_iters}) are more than the {decay} steps of the schedule"
        )
