"""The exact list of modules and names that a checkpoint's pickle may name.

Each becomes an inert value of our own. Nothing is imported or looked up for a name; the value comes
from `pickle_constructors` alone.
"""

from collections.abc import Callable
from typing import Any

import torch

from megatron_ext.checkpoint import pickle_constructors as constructors
from megatron_ext.checkpoint.pickle_stand_ins import Inert, Known

_DTYPES = (
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "float8_e4m3fn",
    "float8_e5m2",
)
STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DCP = "torch.distributed.checkpoint"
_CORE = "megatron.core"
_ENUMERATIONS = {
    f"{_DCP}.metadata": ("_MEM_FORMAT_ENCODING",),
    f"{_DCP}.planner": ("WriteItemType",),
    "signal": ("Signals",),
    f"{_CORE}.enums": ("ModelType", "Fp8Recipe", "Fp4Recipe"),
    f"{_CORE}.transformer.enums": (
        *(
            "AttnBackend",
            "AttnMaskType",
            "AttnType",
            "CudaGraphModule",
            "CudaGraphScope",
            "InferenceCudaGraphScope",
        ),
        *("LayerType", "ModelType"),
    ),
    f"{_CORE}.rerun_state_machine": (
        "RerunDiagnostic",
        "RerunMode",
        "RerunState",
        "RerunValidationStatus",
    ),
    "megatron.enums": (
        "AttnMaskType",
        "AttnType",
        "LayerType",
        "ModelType",
        "PositionEmbeddingType",
    ),
    "megatron.model.enums": (
        "AttnMaskType",
        "AttnType",
        "LayerType",
        "ModelType",
        "PositionEmbeddingType",
    ),
    "megatron.legacy.model.enums": ("AttnMaskType", "AttnType", "LayerType", "ModelType"),
    "transformer_engine.common.recipe": ("Format",),
}
_DATA: dict[str, dict[str, type]] = {  # data classes, with the type of their state
    f"{_DCP}.metadata": {
        **dict.fromkeys(
            ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
            dict,
        ),
        **{"MetadataIndex": dict, "StorageMeta": dict, "TensorProperties": tuple},
    },
    f"{_DCP}.planner": dict.fromkeys(
        ("SavePlan", "WriteItem", "TensorWriteData", "BytesIOWriteData"), dict
    ),
    f"{_DCP}.filesystem": {"_StorageInfo": dict, "_StoragePrefix": dict},
    # of Megatron Core 0.15, in place of Metadata
    f"{_CORE}.dist_checkpointing.strategies.torch": {"MCoreMetadata": dict},
    f"{_CORE}.optimizer.optimizer_config": {"OptimizerConfig": dict},
    f"{_CORE}.rerun_state_machine": {"RerunErrorInjector": dict},
    f"{_CORE}.transformer.pipeline_parallel_layer_layout": {"PipelineParallelLayerLayout": dict},
    "transformer_engine.common.recipe": {"DelayedScaling": dict},
    "_io": {"BytesIO": tuple},
}
_NAMED_ONLY = (("torch.optim.adamw", "AdamW"), ("torch.optim.adam", "Adam"))
"""Optimizers of Megatron on the host; its checkpoints name them."""
_CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "bytearray": bytearray,
    "bytes": bytes,
}
_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}


def _inert(name: str, arguments: bool = False, **options: Any) -> Known:
    def make(*values: Any) -> Inert:
        constructors.need(arguments or not values, f"{name} with arguments")
        constructors.need(len(values) <= 2, f"{name} with many arguments")
        return Inert(known, values)

    known = Known(name, make, by_new=True, **options)
    return known


def _classes() -> dict[tuple[str, str], Any]:
    """Return the enumerations and data classes of training programs."""
    helper = "transformer_engine.common.recipe", "_FormatHelper"
    names: dict[tuple[str, str], Any] = {helper: _inert(".".join(helper), arguments=True)}
    for module, members in _ENUMERATIONS.items():
        names |= {
            (module, name): _inert(f"{module}.{name}", arguments=True, members=True)
            for name in members
        }
    for module, states in _DATA.items():
        names |= {
            (module, name): _inert(f"{module}.{name}", arguments=module == "_io", state=state)
            for name, state in states.items()
        }
    return names | {pair: Known(".".join(pair)) for pair in _NAMED_ONLY}


def _builtins() -> dict[tuple[str, str], Any]:
    makers: dict[str, Callable[..., Any] | None] = {
        **{name: constructors.container_maker(type_) for name, type_ in _CONTAINERS.items()},
        **{name: constructors.number_maker(type_) for name, type_ in _NUMBERS.items()},
        "complex": constructors.make_complex,
        "set": constructors.make_set,
        "frozenset": constructors.make_set,
        "dict": constructors.make_dict,
        "str": None,
        "getattr": None,
    }
    return {
        (module, name): Known(f"builtins.{name}", make)
        for module in ("builtins", "__builtin__")
        for name, make in makers.items()
    }


def _torch() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {}
    for module in ("torch", "torch._C"):
        names |= {(module, name): getattr(torch, name) for name in _DTYPES}
    for module in ("torch", "torch.storage"):
        names |= {(module, name): Known(f"{module}.{name}") for name in STORAGES}
    return names


_MAKERS: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": constructors.make_dict,
    "collections.defaultdict": constructors.make_defaultdict,
    "pathlib.PosixPath": constructors.make_path,
    "pathlib.PurePosixPath": constructors.make_path,
    "datetime.timedelta": constructors.make_timedelta,
    "_codecs.encode": constructors.encode_latin1,
    "torch.Size": constructors.make_size,
    "torch.device": constructors.make_device,
    "torch.serialization._get_layout": constructors.make_layout,
    "numpy.ndarray": None,
    "numpy.dtype": constructors.make_dtype,
    "numpy.core.multiarray._reconstruct": constructors.reserve_array,
    "numpy._core.multiarray._reconstruct": constructors.reserve_array,
    "numpy.core.multiarray.scalar": constructors.make_scalar,
    "numpy._core.multiarray.scalar": constructors.make_scalar,
    "numpy.core.numeric._frombuffer": constructors.make_array,
    "numpy._core.numeric._frombuffer": constructors.make_array,
}


def _all() -> dict[tuple[str, str], Any]:
    names = _classes() | _torch() | _builtins()
    for name, make in _MAKERS.items():
        module, _, member = name.rpartition(".")
        names[module, member] = Known(name, make)
    for name, make in (
        ("argparse.Namespace", constructors.make_namespace),
        ("types.SimpleNamespace", constructors.make_simple_namespace),
    ):
        module, _, member = name.rpartition(".")
        names[module, member] = Known(name, make, by_new=True)
    return names


NAMES = _all()
"""Known names by module and qualified name.

No name has a dot, so that none is reached through another.
"""
INDEX: Known = NAMES[f"{_DCP}.metadata", "MetadataIndex"]
"""PyTorch's key of a part of a tensor."""
