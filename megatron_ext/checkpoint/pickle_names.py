"""The exact list of modules and names that a checkpoint's pickle may name.

Each becomes an inert value of our own. Nothing is imported or looked up for a name; the value comes
from the functions of this module alone.
"""

import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy
import torch


class Inert:
    """A stand-in for an object of a training program: keeps its state, runs none of its code."""

    __slots__ = ("arguments", "known", "state")

    def __init__(self, known: "Known", arguments: tuple[Any, ...]) -> None:
        self.known, self.arguments = known, arguments
        self.state: Any = None

    def __repr__(self) -> str:
        plain = [
            repr(value)[:100] if type(value) in (int, str) else f"a {type(value).__name__}"
            for value in self.arguments
        ]
        name = self.known.name.rpartition(".")[2]
        return f"{name}({', '.join(plain)}{',' * (len(plain) == 1)})" if plain else name


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """A name that a pickle may hold."""

    name: str
    make: Callable[..., Any] | None = None
    """Makes the value from arguments; None for a name that may only be mentioned.

    A ValueError says what is wrong with the arguments.
    """
    by_new: bool = False
    """Whether objects of it are made without a call, which pickles do for data classes."""
    state: type | None = None
    """Of what type the state is that its objects may be given; None for none."""
    members: bool = False
    """Whether it is an enumeration, of which a member may be named."""

    def __repr__(self) -> str:
        return self.name


class Array:
    """A NumPy array or data type in a pickle: a stand-in until its content is known."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: numpy.ndarray | None = None


class DType:
    """A data type of NumPy: what an array of a checkpoint may consist of."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    @property
    def numpy(self) -> numpy.dtype:
        """NumPy's own, made from our list."""
        return numpy.dtype("<" + self.code)


class Storage:
    """Where the numbers of a tensor are: in a file, or in `data`."""

    __slots__ = ("count", "data", "dtype", "offset", "path")

    def __init__(
        self, dtype: torch.dtype, count: int, path: Any, offset: int, data: bytes | None = None
    ) -> None:
        self.dtype, self.count, self.path, self.offset, self.data = dtype, count, path, offset, data


def settled(value: Any) -> Any:
    """Return an array's content in place of its stand-in."""
    return value if type(value) is not Array or value.value is None else value.value


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
_ARRAYS = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
"""NumPy's codes of numbers; no objects, no records, no dates."""
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
_LONGEST_PATH = 4096
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
"""What Megatron's optimizer on the host steps with, named in its checkpoints."""


def need(condition: bool, what: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(what)


def _are(values: Any, kind: type) -> bool:
    return type(values) is tuple and all(type(value) is kind for value in values)


def _namespace() -> Namespace:
    return Namespace()


def _simple_namespace() -> SimpleNamespace:
    return SimpleNamespace()


def _ordered(*pairs: Any) -> dict[Any, Any]:
    need(not pairs, "an OrderedDict with arguments")
    return {}


def _defaultdict(*factory: Any) -> dict[Any, Any]:
    need(
        len(factory) <= 1 and all(type(maker) is Known or maker is None for maker in factory),
        "a defaultdict with arguments",
    )
    return {}


def _empty(kind: type) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        need(len(arguments) <= 1, f"{kind.__name__} with several arguments")
        allowed = (bytes, bytearray) if kind in (bytes, bytearray) else (list, tuple)
        need(
            all(type(value) in allowed for value in arguments), f"{kind.__name__} of something else"
        )
        return kind(*arguments)

    return make


def _set(*arguments: Any) -> Any:
    need(len(arguments) == 1 and type(arguments[0]) is list, "a set of something else")
    for value in arguments[0]:
        check_key(value)
    return set(arguments[0])


def _number(kind: type) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        need(
            len(arguments) <= 1 and all(type(value) in (int, float, bool) for value in arguments),
            f"{kind.__name__} of something else",
        )
        return kind(*arguments)

    return make


def _complex(*parts: Any) -> complex:
    need(
        len(parts) == 2 and all(type(part) in (int, float) for part in parts),
        "complex of something else",
    )
    return complex(*parts)


def _path(*parts: Any) -> PurePosixPath:
    need(
        _are(parts, str) and len(parts) + sum(map(len, parts)) <= _LONGEST_PATH,
        "a path of something else, or one too long",
    )
    return PurePosixPath(*parts)


def _timedelta(*parts: Any) -> timedelta:
    need(
        _are(parts, int) and len(parts) <= 3 and all(abs(part) < 10**8 for part in parts),
        "a timedelta out of range",
    )
    return timedelta(*parts)


def _encode(*arguments: Any) -> bytes:
    need(
        len(arguments) == 2 and _are(arguments, str) and arguments[1] in ("latin1", "latin-1"),
        "another encoding than latin1",
    )
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("text that is not latin1") from None


def _size(*arguments: Any) -> tuple[int, ...]:
    need(len(arguments) <= 1, "a torch.Size with several arguments")
    sizes = tuple(arguments[0]) if arguments and type(arguments[0]) in (tuple, list) else ()
    check_sizes(sizes)
    return sizes


def check_sizes(sizes: Any) -> None:
    """Check that a value is a tuple of at most 32 sizes."""
    need(
        _are(sizes, int) and len(sizes) <= 32 and all(0 <= size < 2**48 for size in sizes),
        "sizes that no tensor has",
    )


def _layout(*arguments: Any) -> torch.layout:
    need(
        arguments == ("torch.strided",) and type(arguments[0]) is str,
        "another layout than torch.strided",
    )
    return torch.strided


def _device(*arguments: Any) -> str:
    need(
        1 <= len(arguments) <= 2 and type(arguments[0]) is str and _are(arguments[1:], int),
        "a device of something else",
    )
    return ":".join(map(str, arguments))


def _dtype(*arguments: Any) -> DType:
    need(
        len(arguments) in (1, 3)
        and type(arguments[0]) is str
        and arguments[0].lstrip("<|") in _ARRAYS,
        "NumPy's other data types",
    )
    return DType(arguments[0].lstrip("<|"))


def array(*arguments: Any) -> Array:
    """Return the stand-in that an array is until its content comes."""
    kind = arguments[0] if len(arguments) == 3 else None
    need(
        type(kind) is Known and kind.name == "numpy.ndarray" and type(arguments[1]) is tuple,
        "an array of another class",
    )
    return Array()


def set_array(target: Array, state: Any) -> None:
    """Give an array its content: numbers of a known type, as many bytes as its shape asks for."""
    need(
        target.value is None and type(state) is tuple and len(state) == 5,
        "an array's content twice, or of another form",
    )
    _, shape, kind, fortran, content = state
    target.value = _filled(content, kind, shape, "F" if fortran is True else "C")


def _filled(content: Any, kind: Any, shape: Any, order: Any) -> numpy.ndarray:
    need(
        type(kind) is DType and type(content) in (bytes, bytearray),
        "an array of other things than numbers",
    )
    need(type(order) is str and order in ("C", "F"), "an array in another order")
    check_sizes(shape)
    need(
        len(content) == math.prod(shape) * kind.numpy.itemsize,
        "an array of another size than its content",
    )
    return (
        numpy.frombuffer(bytes(content), kind.numpy).reshape(shape, order=order).copy(order=order)
    )


def _from_buffer(*arguments: Any) -> numpy.ndarray:
    need(len(arguments) == 4, "an array's content of another form")
    return _filled(*arguments)


def check_dtype_state(state: Any) -> None:
    """Check what NumPy stores of a data type of numbers: its byte order, and nothing else."""
    what = "NumPy's other data types"
    need(
        type(state) is tuple
        and len(state) == 8
        and _are(state[1:2], str)
        and state[1] in ("<", "|"),
        what,
    )
    need(all(part is None for part in state[2:5]) and _are(state[:1] + state[5:], int), what)


def _scalar(*arguments: Any) -> Any:
    need(len(arguments) == 2, "a number's content of another form")
    return _filled(arguments[1], arguments[0], (), "C").item()


def check_key(key: Any) -> None:
    """Check that a value may be a key.

    A file must not be able to draw out its hashing and comparing.
    """
    if not _is_plain(key):
        need(
            type(key) is tuple and len(key) <= 8 and all(map(_is_part, key)),
            "a key that no checkpoint has",
        )


def _is_plain(key: Any) -> bool:
    kind = type(key)
    return (
        kind in (str, bool, bytes, float, torch.dtype)
        or key is None
        or (kind is int and -(2**60) < key < 2**60)
    )


def _is_part(key: Any) -> bool:
    """Return whether a value may be a part of a key.

    Tuples of larger numbers can be made to have all the same hash.
    """
    kind = type(key)
    return (
        kind in (str, bool, bytes, torch.dtype) or key is None or (kind is int and abs(key) < 2**31)
    )


def _inert(name: str, arguments: bool = False, **options: Any) -> Known:
    def make(*values: Any) -> Inert:
        need(arguments or not values, f"{name} with arguments")
        need(len(values) <= 2, f"{name} with many arguments")
        return Inert(known, values)

    known = Known(name, make, by_new=True, **options)
    return known


def _all() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {}
    for module, members in _ENUMERATIONS.items():
        names |= {
            (module, kind): _inert(f"{module}.{kind}", arguments=True, members=True)
            for kind in members
        }
    for module, states in _DATA.items():
        names |= {
            (module, kind): _inert(f"{module}.{kind}", arguments=module == "_io", state=state)
            for kind, state in states.items()
        }
    names["transformer_engine.common.recipe", "_FormatHelper"] = _inert(
        "transformer_engine.common.recipe._FormatHelper", arguments=True
    )
    names |= {pair: Known(".".join(pair)) for pair in _NAMED_ONLY}
    for module in ("torch", "torch._C"):
        names |= {(module, name): getattr(torch, name) for name in _DTYPES}
    for module in ("torch", "torch.storage"):
        names |= {(module, name): Known(f"{module}.{name}") for name in STORAGES}
    for module in ("builtins", "__builtin__"):
        kinds: dict[str, Callable[..., Any]] = {
            **{name: _empty(kind) for name, kind in _EMPTY.items()},
            **{name: _number(kind) for name, kind in _NUMBERS.items()},
        }
        kinds |= {"complex": _complex, "set": _set, "frozenset": _set, "dict": _ordered}
        names |= {(module, name): Known(f"builtins.{name}", make) for name, make in kinds.items()}
        names |= {
            (module, "str"): Known("builtins.str"),
            (module, "getattr"): Known("builtins.getattr"),
        }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names |= {
            (module, "_reconstruct"): Known(f"{module}._reconstruct", array),
            (module, "scalar"): Known(f"{module}.scalar", _scalar),
        }
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        names[module, "_frombuffer"] = Known(f"{module}._frombuffer", _from_buffer)
    return names | {
        ("argparse", "Namespace"): Known("argparse.Namespace", _namespace, by_new=True),
        ("types", "SimpleNamespace"): Known(
            "types.SimpleNamespace", _simple_namespace, by_new=True
        ),
        ("collections", "OrderedDict"): Known("collections.OrderedDict", _ordered),
        ("collections", "defaultdict"): Known("collections.defaultdict", _defaultdict),
        ("pathlib", "PosixPath"): Known("pathlib.PosixPath", _path),
        ("pathlib", "PurePosixPath"): Known("pathlib.PurePosixPath", _path),
        ("datetime", "timedelta"): Known("datetime.timedelta", _timedelta),
        ("_codecs", "encode"): Known("_codecs.encode", _encode),
        ("torch", "Size"): Known("torch.Size", _size),
        ("torch", "device"): Known("torch.device", _device),
        ("torch.serialization", "_get_layout"): Known("torch.serialization._get_layout", _layout),
        ("numpy", "ndarray"): Known("numpy.ndarray"),
        ("numpy", "dtype"): Known("numpy.dtype", _dtype),
    }


_EMPTY: dict[str, type] = {"list": list, "tuple": tuple, "bytearray": bytearray, "bytes": bytes}
_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}
NAMES = _all()
"""Known names by module and qualified name.

None has a dot in it, so that nothing is reached through another name.
"""
INDEX: Known = NAMES[f"{_DCP}.metadata", "MetadataIndex"]
"""PyTorch's key of a part of a tensor."""
