"""Our own interpreter of pickles.

It builds plain values and inert stand-ins, imports nothing and calls nothing of the file.

Python's own unpickler cannot be bounded: it sets attributes of classes, hashes what it is given and
allocates what a length says. This one knows the operations that it is given (`pickle_operations`
has those that checkpoints are written with) and `pickle_names`. What it is asked beyond these ends
it with a message; so do more operations, bytes, time or nesting than a checkpoint has use for.
"""

import struct
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from galen.errors import DataError
from megatron_ext.checkpoint import pickle_names
from megatron_ext.checkpoint.pickle_names import (
    NAMES,
    Array,
    DType,
    Inert,
    Known,
    Storage,
    need,
    settled,
)
from megatron_ext.checkpoint.stored_tensor import StoredTensor, contiguous

Operation = Callable[["Machine"], None]
Place = Callable[[str, int], tuple[Path, int]]
"""Finds the bytes of a storage by its key and the number of bytes that it must have."""
_STORAGE_OF_BYTES = {
    ("torch.storage", "_load_from_bytes"),
    ("megatron.core.safe_globals", "safe_load_from_bytes"),
}
_REBUILD = {
    ("torch._utils", name)
    for name in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter")
}
_CHECK_EVERY = 4096
_BYTES_EACH, _BYTES_ANYWAY = 256, 2**27
_BYTES_AN_OPERATION = 256
"""What is copied or gone through in the time of an operation."""
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""First bytes of PyTorch's format of before 2020, still used for a tensor pickled alone."""


@dataclass(frozen=True)
class Limits:
    """What a pickle may take."""

    operations: int = 4_000_000
    bytes: int = 2**30
    """Estimated bytes of the values.

    At most `_BYTES_EACH` for each byte of the pickle, beside `_BYTES_ANYWAY`.
    """
    seconds: float = 10.0
    """Processor time, beside a second for each million bytes of the pickle."""


class Machine:
    """Interprets one pickle in `data`, from `start`; `end` is then where it ended.

    Args:
        data: the pickle, and perhaps others behind it.
        source: names the file in messages.
        place: finds a storage; None where the pickle may refer to none.
    """

    def __init__(
        self,
        data: bytes,
        source: str | Path,
        place: Place | None = None,
        limits: Limits | None = None,
        start: int = 0,
    ) -> None:
        self.data, self.source, self.place, self.end = data, source, place, start
        self.limits = limits or Limits()
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """What lay on the stack at each mark."""
        self.has_arrays = False
        self.memo: dict[int, Any] = {}
        self.taken = 0
        self.room = min(self.limits.bytes, _BYTES_ANYWAY + _BYTES_EACH * len(data))
        self.operations = 0
        self.next_check = _CHECK_EVERY
        self.is_inner = False
        """Whether the pickle lies in another, as that of a tensor's storage."""
        self.deadline = time.thread_time() + self.limits.seconds + len(data) / 1e6

    def load(self, table: Sequence[Operation | None]) -> Any:
        """Return the value.

        `table` has the operation of each code, or None where a pickle that has it is refused.

        Raises:
            DataError: the pickle is damaged, or asks for what no checkpoint does.
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

    def damaged(self, why: str) -> DataError:
        """Return the error that says what is wrong with the pickle."""
        return DataError(f"{self.source} is damaged, or not a checkpoint's: {why}")

    def forbidden(self, what: str) -> DataError:
        """Return the error that says what the pickle wants to run."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in what[:200])
        return DataError(
            f"{self.source} asks to run {shown}, which no checkpoint does; nothing was run. "
            "The file is not what it seems: do not load it with any other program either"
        )

    def _run(self) -> Any:
        table, data, size = self.table, self.data, len(self.data)
        while self.end < size:
            code = data[self.end]
            self.end += 1
            self.operations += 1
            if self.operations >= self.next_check:
                self.check_limits()
            if code == 0x2E:  # STOP
                need(
                    len(self.stack) == 1 and not self.below,
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

    def check_limits(self) -> None:
        """Refuse a pickle that takes too much."""
        self.next_check = self.operations + _CHECK_EVERY
        if (
            self.operations > self.limits.operations
            or self.taken > self.room
            or time.thread_time() > self.deadline
        ):
            raise self.damaged(
                f"it takes more than a checkpoint's does: {self.operations:,} operations, about"
                f" {self.taken / 2**20:,.0f} MiB"
            )

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.end + count
        if count < 0 or end > len(self.data):
            raise self.damaged(
                f"it speaks of {count:,} bytes and holds {len(self.data) - self.end:,}"
            )
        part = self.data[self.end : end]
        self.end = end
        self.charge(count)
        return part

    def charge(self, count: int) -> None:
        """Count bytes that a value takes, or that are gone through."""
        self.taken += count
        self.operations += count // _BYTES_AN_OPERATION
        if self.taken > self.room or self.operations >= self.next_check:
            self.check_limits()

    def number(self, form: struct.Struct) -> Any:
        """Return the next number of a form."""
        (value,) = form.unpack_from(self.data, self.end)
        self.end += form.size
        return value

    def line(self, longest: int = 2**16) -> bytes:
        """Return the text up to the end of the line."""
        end = self.data.find(b"\n", self.end, self.end + longest)
        need(end >= 0, "a line without an end")
        part = self.data[self.end : end]
        self.end = end + 1
        return part

    def push(self, value: Any, size: int = 8) -> None:
        """Push a value that takes about `size` bytes."""
        self.taken += size
        self.stack.append(value)

    def pop(self) -> Any:
        """Pop a value that lies above the last mark."""
        return settled(self.stack.pop())

    def mark(self) -> None:
        """Begin a row of values."""
        self.taken += 72
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Pop what lies above the last mark, and the mark."""
        values, self.stack = self.stack, self.below.pop()
        return [settled(value) for value in values] if self.has_arrays else values

    def top(self, kind: type) -> Any:
        """Return the value on the top, which must be exactly of a type."""
        value = self.stack[-1]
        need(type(value) is kind, f"a {kind.__name__} is filled that is none")
        return value

    def find(self, module: Any, name: Any) -> None:
        """Push what a name represents; refuse any that is not in the list."""
        need(type(module) is str and type(name) is str, "a name that is no text")
        pair = (module, name)
        if pair in _STORAGE_OF_BYTES or pair in _REBUILD:
            self.push(Known(f"{module}.{name}", _REBUILDERS[name]))
        elif pair in NAMES:
            self.push(NAMES[pair])
        else:
            raise self.forbidden(f"{module}.{name}")

    def call(self, known: Any, arguments: Any) -> Any:
        """Return what a known name makes of arguments."""
        need(type(arguments) is tuple, "arguments that are no tuple")
        if type(known) is not Known:
            raise self.forbidden(_told(known))
        self.charge(200 + 8 * len(arguments) + sum(map(_extent, arguments)))
        make: Any = known.make
        if make in _OF_MACHINE:
            return make(self, *arguments)
        if known.name == "builtins.getattr":
            return self._member(*arguments)
        self.has_arrays = self.has_arrays or make is pickle_names.array
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
        raise self.forbidden(f"getattr on {_told(known)}")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state: only one of our own."""
        kind = type(target)
        self.charge(16 * _extent(state))
        if kind is Inert:
            need(
                target.known.state is not None and target.state is None,
                f"{target.known.name} with a state",
            )
            need(
                type(state) is target.known.state,
                f"{target.known.name} with a state of another form",
            )
            if type(state) is dict:
                _check_fields(state)
            target.state = state
        elif kind in (Namespace, SimpleNamespace):
            _check_fields(state)
            vars(target).update(state)
        elif kind is Array:
            pickle_names.set_array(target, state)
        elif kind is DType:
            pickle_names.check_dtype_state(state)
        elif kind is dict:
            # an OrderedDict's attributes, such as a state dictionary's versions, are not kept
            _check_fields(state)
        else:
            raise self.forbidden(f"a change of {_told(target)}")

    def refer(self, pid: Any) -> Storage:
        """Return the storage that a reference speaks of."""
        if (
            self.place is None
            or type(pid) is not tuple
            or len(pid) not in (5, 6)
            or pid[0] != "storage"
        ):
            raise self.damaged(f"it refers to an object outside itself ({type(pid).__name__})")
        _, kind, key, location, count = pid[:5]
        need(
            type(kind) is Known
            and type(key) is str
            and type(location) is str
            and type(count) is int,
            "a storage of another form",
        )
        dtype = pickle_names.STORAGES.get(kind.name.rpartition(".")[2])
        need(dtype is not None and 0 <= count < 2**48, "a storage of another type")
        assert dtype is not None
        path, offset = self.place(key, count * dtype.itemsize)
        return Storage(dtype, count, path, offset)


def _extent(value: Any) -> int:
    """Return about how many bytes a copy of a value takes, what it refers to left out."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return 4 * len(value)
    return 8 * len(value) if kind in (list, tuple, dict, set, frozenset) else 0


def _told(value: Any) -> str:
    """Return what a message calls a value; its content may be endless."""
    return value.name if type(value) is Known else f"a {type(value).__name__}"


def _check_fields(state: Any) -> None:
    need(type(state) is dict, "a state that is no dict")
    need(
        all(type(name) is str and not name.startswith("__") for name in state),
        "a field that no checkpoint has",
    )


def _rebuild_tensor(machine: Machine, *arguments: Any) -> StoredTensor:
    need(len(arguments) in (4, 6, 7), "a tensor of another form")
    storage, offset, size, stride = arguments[:4]
    need(
        len(arguments) < 7 or not arguments[6],
        "a tensor that is the negative or the conjugate of what is stored",
    )
    need(
        type(storage) is Storage and type(offset) is int and offset >= 0,
        "a tensor without a storage",
    )
    pickle_names.check_sizes(size)
    pickle_names.check_sizes(stride)
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
    place = storage.offset + offset * storage.dtype.itemsize
    return StoredTensor(
        storage.path,
        place,
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
    data, start, found, asked = arguments[0], 0, [], []

    def place(key: str, size: int) -> tuple[Path, int]:
        asked.append((key, size))
        return Path(), 0

    for _ in range(5):  # all that torch.load unpickles
        inner = Machine(data, machine.source, place, machine.limits, start)
        inner.is_inner, inner.room, inner.deadline = True, machine.room, machine.deadline
        inner.taken, inner.operations = machine.taken, machine.operations
        inner.next_check = machine.next_check
        found.append(inner.load(machine.table))
        start = inner.end
        machine.taken, machine.operations = inner.taken, inner.operations
        machine.next_check = inner.next_check
    magic, version, _, storage, keys = found
    need(
        (magic, version) == _LEGACY and type(storage) is Storage and len(asked) == 1,
        "a storage of another form",
    )
    key, size = asked[0]
    need(keys == [key] and len(data) == start + 8 + size, "a storage that is not whole")
    return Storage(storage.dtype, storage.count, Path(str(machine.source)), 0, data[start + 8 :])


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_load_from_bytes": _storage_of_bytes,
    "safe_load_from_bytes": _storage_of_bytes,
}
_OF_MACHINE = set(_REBUILDERS.values())
