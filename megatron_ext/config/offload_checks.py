"""Checks of activation offload; they raise ValueError, like those in `checks`."""

from megatron_ext.config.sections import Parallel, Training

_LAYERS = "training.cpu_offloading_num_layers"
_MODULES = "training.fine_grained_activation_offloading"


def check_offloading(training: Training, parallel: Parallel) -> None:
    """Check what Megatron Core cannot combine with activation offload."""
    if training.cpu_offloading_num_layers:
        _check_layers(training, parallel)
    if training.fine_grained_activation_offloading:
        _check_modules(training)
    elif training.offload_modules:
        raise ValueError(f"training.offload_modules needs {_MODULES}: true")


def _check_layers(training: Training, parallel: Parallel) -> None:
    if training.fine_grained_activation_offloading:
        raise ValueError(f"{_LAYERS} is incompatible with {_MODULES}; set it to 0")
    if parallel.pipeline_model_parallel_size > 1:
        raise ValueError(
            f"{_LAYERS} needs parallel.pipeline_model_parallel_size: 1; use"
            f" {_MODULES} in a pipeline"
        )
    if training.recompute_granularity is not None:
        raise ValueError(
            f"{_LAYERS} is incompatible with training.recompute_granularity; set one of them to 0"
            " or null"
        )
    _check_attention(_LAYERS, training)


def _check_modules(training: Training) -> None:
    modules = training.offload_modules or []
    if not modules:
        raise ValueError(f"{_MODULES} needs training.offload_modules, for example [qkv_linear]")
    if "attn_proj" in modules and "core_attn" not in modules:
        raise ValueError(
            "training.offload_modules: attn_proj needs core_attn, whose backward pass keeps the"
            " same tensor; add it"
        )
    if training.recompute_granularity == "full":
        raise ValueError(
            f"{_MODULES} is incompatible with training.recompute_granularity: full, which keeps"
            " only the inputs of layers; set it to false"
        )
    recomputed = sorted(set(modules) & set(training.recompute_modules or []))
    if recomputed:
        raise ValueError(
            f"training.offload_modules and recompute_modules both name {recomputed[0]}; recomputed"
            " modules keep nothing to offload"
        )
    _check_attention(_MODULES, training)


def _check_attention(key: str, training: Training) -> None:
    # Transformer Engine offloads contiguous tensors only
    if training.attention_backend == "local":
        raise ValueError(f"{key} is incompatible with training.attention_backend: local; use auto")
