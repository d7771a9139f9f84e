"""Our own interpreter of pickles.

It builds plain values and inert stand-ins, imports nothing and calls nothing of the file.

Python's unpickler cannot be bounded: it sets attributes of classes, hashes any value and allocates
any length. This one knows the operations passed to it (`pickle_operations` has those that
checkpoints are written with) and `pickle_names`. Anything else is refused with a message, and so
are more operations, bytes, time or nesting than a checkpoint needs.
"""

import struct
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from galen.errors import DataError
from megatron_ext.checkpoint import pickle_constructors as constructors
from megatron_ext.checkpoint.pickle_constructors import need
from megatron_ext.checkpoint.pickle_limits import Budget, Limits, damaged
from megatron_ext.checkpoint.pickle_names import NAMES, STORAGES
from megatron_ext.checkpoint.pickle_stand_ins import Array, DType, Inert, Known, Storage, settled
from megatron_ext.checkpoint.stored_tensor import StoredTensor, contiguous

Operation = Callable[["Machine"], None]
FindStorage = Callable[[str, int], tuple[Path, int]]
"""Finds a storage's file and first byte by its key and number of bytes."""
_STORAGE_OF_BYTES = {
    ("torch.storage", "_load_from_bytes"),
    ("megatron.core.safe_globals", "safe_load_from_bytes"),
}
_REBUILD = {
    ("torch._utils", name)
    for name in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter")
}
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""First bytes of PyTorch's format of before 2020, still used for a tensor pickled alone."""


class Machine:
    """Interprets one pickle in `data`, from `start`; afterwards, `end` is its end.

    Args:
        data: the pickle, and perhaps others behind it.
        source: names the file in messages.
        find_storage: finds a storage; None where the pickle may refer to none.
        limits: of the file.
        start: first byte of the pickle.
        outer: the machine that interprets the pickle around this one.
    """

    def __init__(
        self,
        data: bytes,
        source: str | Path,
        find_storage: FindStorage | None = None,
        limits: Limits | None = None,
        start: int = 0,
        outer: "Machine | None" = None,
    ) -> None:
        self.data = data
        self.source = source
        self.find_storage = find_storage
        self.end = start
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        """The values below each mark."""
        self.has_arrays = False
        self.memo: dict[int, Any] = {}
        self.is_inner = outer is not None
        """Whether the pickle is inside another, as that of a tensor's storage."""
        own = Budget(source, limits or Limits(), len(data))
        self.budget: Budget = own if outer is None else outer.budget

    def load(self, table: Sequence[Operation | None]) -> Any:
        """Return the value.

        `table` has the operation of each code, or None where a pickle that has it is refused.

        Raises:
            DataError: the pickle is damaged, or has operations that no checkpoint has.
        """
        self.table = table
        try:
            return self._run()
        except (
            IndexError,
            struct.error,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            raise self.damaged(
                f"it ends or breaks at byte {self.end:,} ({type(error).__name__})"
            ) from None
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise self.damaged(f"{error}, at byte {self.end:,}") from None

    def damaged(self, reason: str) -> DataError:
        """Return the error for a pickle that no checkpoint has."""
        return damaged(self.source, reason)

    def forbidden(self, what: str) -> DataError:
        """Return the error for a pickle that asks to run something."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in what[:200])
        return DataError(
            f"{self.source} asks to run {shown}, which no checkpoint does; nothing was run. "
            "The file is not what it seems: do not load it with any other program either"
        )

    def _run(self) -> Any:
        table = self.table
        data = self.data
        size = len(data)
        budget = self.budget
        while self.end < size:
            code = data[self.end]
            self.end += 1
            budget.operations += 1
            if budget.operations >= budget.next_check:
                budget.check()
            if code == 0x2E:  # STOP
                need(
                    len(self.stack) == 1 and not self.outer_stacks,
                    "it leaves more than one value, or none",
                )
                return settled(self.stack.pop())
            operation = table[code]
            if operation is None:
                raise self.damaged(
                    f"it uses the operation {bytes([code])!r}, which no checkpoint does"
                )
            operation(self)
        raise IndexError

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.end + count
        if count < 0 or end > len(self.data):
            raise self.damaged(
                f"it refers to {count:,} bytes and has {len(self.data) - self.end:,}"
            )
        content = self.data[self.end : end]
        self.end = end
        self.charge(count)
        return content

    def charge(self, count: int) -> None:
        """Count bytes that a value takes, or that are read."""
        self.budget.charge(count)

    def number(self, number_format: struct.Struct) -> Any:
        """Return the next number of a format."""
        (value,) = number_format.unpack_from(self.data, self.end)
        self.end += number_format.size
        return value

    def line(self, max_length: int = 2**16) -> bytes:
        """Return the text up to the end of the line."""
        end = self.data.find(b"\n", self.end, self.end + max_length)
        need(end >= 0, "a line without an end")
        text = self.data[self.end : end]
        self.end = end + 1
        return text

    def push(self, value: Any, size: int = 8) -> None:
        """Push a value that takes about `size` bytes."""
        self.budget.bytes += size
        self.stack.append(value)

    def pop(self) -> Any:
        """Pop a value above the last mark."""
        return settled(self.stack.pop())

    def mark(self) -> None:
        """Mark the beginning of a sequence of values."""
        self.budget.bytes += 72
        self.outer_stacks.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        values, self.stack = self.stack, self.outer_stacks.pop()
        return [settled(value) for value in values] if self.has_arrays else values

    def top(self, type_: type) -> Any:
        """Return the top value, which must be exactly of a type."""
        value = self.stack[-1]
        need(type(value) is type_, f"a {type_.__name__} is filled that is none")
        return value

    def find(self, module: Any, name: Any) -> None:
        """Push the value of a name; refuse any that is not in the list."""
        need(type(module) is str and type(name) is str, "a name that is not text")
        pair = (module, name)
        if pair in _STORAGE_OF_BYTES or pair in _REBUILD:
            self.push(Known(f"{module}.{name}", _REBUILDERS[name]))
        elif pair in NAMES:
            self.push(NAMES[pair])
        else:
            raise self.forbidden(f"{module}.{name}")

    def call(self, known: Any, arguments: Any) -> Any:
        """Return the value that a known name makes from arguments."""
        need(type(arguments) is tuple, "arguments that are no tuple")
        if type(known) is not Known:
            raise self.forbidden(_describe(known))
        self.charge(200 + 8 * len(arguments) + sum(map(_extent, arguments)))
        make: Any = known.make
        if make in _OF_MACHINE:
            return make(self, *arguments)
        if known.name == "builtins.getattr":
            return self._member(*arguments)
        self.has_arrays = self.has_arrays or make is constructors.reserve_array
        if make is None:
            raise self.forbidden(known.name)
        return make(*arguments)

    def _member(self, *arguments: Any) -> Any:
        """Return a stand-in for an enum member, the only thing such files call getattr for."""
        known, name = arguments if len(arguments) == 2 else (None, None)
        if (
            type(known) is Known
            and known.members
            and type(name) is str
            and name.isidentifier()
            and not name.startswith("_")
        ):
            return Inert(known, (name,))
        raise self.forbidden(f"getattr on {_describe(known)}")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state: only one of our own."""
        target_type = type(target)
        self.charge(16 * _extent(state))
        if target_type is Inert:
            need(
                target.known.state is not None and target.state is None,
                f"{target.known.name} with a state",
            )
            need(
                type(state) is target.known.state,
                f"{target.known.name} with a state of another type",
            )
            if type(state) is dict:
                _check_fields(state)
            target.state = state
        elif target_type in (Namespace, SimpleNamespace):
            _check_fields(state)
            vars(target).update(state)
        elif target_type is Array:
            constructors.set_array(target, state)
        elif target_type is DType:
            constructors.check_dtype_state(state)
        elif target_type is dict:
            # an OrderedDict's attributes, such as a state dictionary's versions, are not kept
            _check_fields(state)
        else:
            raise self.forbidden(f"a change of {_describe(target)}")

    def refer(self, pid: Any) -> Storage:
        """Return the storage of a reference."""
        if (
            self.find_storage is None
            or type(pid) is not tuple
            or len(pid) not in (5, 6)
            or pid[0] != "storage"
        ):
            raise self.damaged(f"it refers to an object outside itself ({type(pid).__name__})")
        _, known, key, location, count = pid[:5]
        need(
            type(known) is Known
            and type(key) is str
            and type(location) is str
            and type(count) is int,
            "a storage of another structure",
        )
        dtype = STORAGES.get(known.name.rpartition(".")[2])
        need(dtype is not None and 0 <= count < 2**48, "a storage of another type")
        assert dtype is not None
        path, offset = self.find_storage(key, count * dtype.itemsize)
        return Storage(dtype, count, path, offset)


def _extent(value: Any) -> int:
    """Return about how many bytes a copy of a value takes, without the values in it."""
    type_ = type(value)
    if type_ in (str, bytes, bytearray):
        return 4 * len(value)
    return 8 * len(value) if type_ in (list, tuple, dict, set, frozenset) else 0


def _describe(value: Any) -> str:
    """Return a value's description for messages; its content may be endless."""
    return value.name if type(value) is Known else f"a {type(value).__name__}"


def _check_fields(state: Any) -> None:
    need(type(state) is dict, "a state that is not a dict")
    need(
        all(type(name) is str and not name.startswith("__") for name in state),
        "a field that no checkpoint has",
    )


def _rebuild_tensor(machine: Machine, *arguments: Any) -> StoredTensor:
    need(len(arguments) in (4, 6, 7), "a tensor of another structure")
    storage, offset, size, stride = arguments[:4]
    need(
        len(arguments) < 7 or not arguments[6],
        "a tensor that is the negative or the conjugate of its storage",
    )
    need(
        type(storage) is Storage and type(offset) is int and offset >= 0,
        "a tensor without a storage",
    )
    constructors.check_sizes(size)
    constructors.check_sizes(stride)
    need(len(size) == len(stride), "a tensor with other strides than sizes")
    count = 1
    for length in size:
        count *= length
    last = (
        offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count
        else 0
    )
    need(
        count <= storage.count and last < max(storage.count, 1),
        "a tensor that reaches beyond its storage",
    )
    if storage.data is not None:
        machine.charge(count * storage.dtype.itemsize)
    return StoredTensor(
        storage.path,
        storage.offset + offset * storage.dtype.itemsize,
        storage.dtype,
        size,
        None if stride == contiguous(size) else stride,
        storage.data,
    )


def _rebuild_parameter(_: Machine, *arguments: Any) -> StoredTensor:
    need(
        len(arguments) == 3 and type(arguments[0]) is StoredTensor, "a parameter of something else"
    )
    return arguments[0]


def _storage_of_bytes(machine: Machine, *arguments: Any) -> Storage:
    """Return the storage from PyTorch's pickle of a single tensor.

    It is five pickles (marks, the storage, its key), then the storage's bytes.
    """
    need(
        len(arguments) == 1 and type(arguments[0]) is bytes and not machine.is_inner,
        "a storage of something else",
    )
    data = arguments[0]
    start = 0
    values = []
    references: list[tuple[str, int]] = []

    def find_storage(key: str, size: int) -> tuple[Path, int]:
        references.append((key, size))
        return Path(), 0

    for _ in range(5):  # all that torch.load unpickles
        inner = Machine(data, machine.source, find_storage, start=start, outer=machine)
        values.append(inner.load(machine.table))
        start = inner.end
    magic, version, _, storage, keys = values
    need(
        (magic, version) == _LEGACY and type(storage) is Storage and len(references) == 1,
        "a storage of another structure",
    )
    key, size = references[0]
    need(keys == [key] and len(data) == start + 8 + size, "an incomplete storage")
    return Storage(storage.dtype, storage.count, Path(str(machine.source)), 0, data[start + 8 :])


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_load_from_bytes": _storage_of_bytes,
    "safe_load_from_bytes": _storage_of_bytes,
}
_OF_MACHINE = set(_REBUILDERS.values())
