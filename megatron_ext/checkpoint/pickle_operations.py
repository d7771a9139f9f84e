"""The pickle operations that checkpoints use, for `pickle_machine`; all others are refused."""

import struct
from collections.abc import Callable
from typing import Any

from megatron_ext.checkpoint.pickle_constructors import check_key, check_sizes, need
from megatron_ext.checkpoint.pickle_machine import Machine, Operation
from megatron_ext.checkpoint.pickle_names import INDEX
from megatron_ext.checkpoint.pickle_stand_ins import Inert, Known, settled

_MAX_NUMBER_LENGTH = 256


def _proto(machine: Machine) -> None:
    need(machine.take(1)[0] <= 5, "a protocol of pickles that is not known")


def _frame(machine: Machine) -> None:
    need(
        machine.number(_UINT64) <= len(machine.data) - machine.end,
        "a frame that is longer than the file",
    )


def _constant(value: Any) -> Operation:
    return lambda machine: machine.push(value)


def _fixed(number_format: str) -> Operation:
    compiled = struct.Struct(number_format)
    return lambda machine: machine.push(machine.number(compiled), 32)


def _text(length_format: struct.Struct) -> Operation:
    return lambda machine: machine.push(
        machine.take(machine.number(length_format)).decode("utf-8", "surrogatepass"), 50
    )


def _bytes(length_format: struct.Struct, make: Callable[[bytes], Any] = bytes) -> Operation:
    return lambda machine: machine.push(make(machine.take(machine.number(length_format))), 40)


def _old_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _long(length_format: struct.Struct) -> Operation:
    def operation(machine: Machine) -> None:
        length = machine.number(length_format)
        need(0 <= length <= _MAX_NUMBER_LENGTH, "a number that no checkpoint has")
        machine.push(int.from_bytes(machine.take(length), "little", signed=True), 64)

    return operation


def _int_line(machine: Machine) -> None:
    text = machine.line(_MAX_NUMBER_LENGTH)
    machine.push(
        (
            {b"00": False, b"01": True}.get(text)
            if text in (b"00", b"01")
            else int(text.removesuffix(b"L"))
        ),
        64,
    )


def _string_line(machine: Machine) -> None:
    text = machine.line()
    need(
        len(text) >= 2 and text[:1] == text[-1:] and text[:1] in (b"'", b'"'),
        "a text without its quotes",
    )
    machine.charge(len(text))
    machine.push(_old_text(text[1:-1].decode("unicode_escape").encode("latin-1")), 50)


def _unicode_line(machine: Machine) -> None:
    text = machine.line()
    machine.charge(4 * len(text))
    machine.push(text.decode("raw-unicode-escape"), 50)


def _tuple(count: int) -> Operation:
    def operation(machine: Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)), 56)

    return operation


def _of_marked(make: Callable[[list[Any]], Any]) -> Operation:
    def operation(machine: Machine) -> None:
        values = machine.marked()
        machine.push(make(values), 60 + 8 * len(values))

    return operation


def _new(make: Callable[[], Any], size: int) -> Operation:
    return lambda machine: machine.push(make(), size)


def _dict_of_marked(machine: Machine) -> None:
    values = machine.marked()
    machine.push({}, 72)
    _fill(machine, values)


def _frozen(machine: Machine) -> None:
    target: set[Any] = set()
    _add(machine, target, machine.marked())
    machine.push(frozenset(target), 216)


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: Machine) -> None:
    values = machine.marked()
    machine.top(list).extend(values)


def _set_item(machine: Machine) -> None:
    value = machine.pop()
    key = machine.pop()
    machine.budget.bytes += 64
    machine.top(dict)[_key(key)] = value


def _set_items(machine: Machine) -> None:
    _fill(machine, machine.marked())


def _fill(machine: Machine, values: list[Any]) -> None:
    need(len(values) % 2 == 0, "a key without a value")
    target = machine.top(dict)
    machine.budget.bytes += 32 * len(values)
    for index in range(0, len(values), 2):
        key = values[index]
        target[key if type(key) is str else _key(key)] = values[index + 1]
        if not index % 512:
            machine.budget.check()  # keys may be chosen to collide


def _key(value: Any) -> Any:
    """Return a value as a key: PyTorch's MetadataIndex as its name and offset."""
    if type(value) is not Inert or value.known is not INDEX:
        check_key(value)
        return value
    state = value.state
    need(type(state) is dict and type(state.get("fqn")) is str, "an index without a name")
    offset = state.get("offset")
    if offset is not None:
        check_sizes(offset)
    return state["fqn"], offset


def _add_items(machine: Machine) -> None:
    values = machine.marked()
    _add(machine, machine.top(set), values)


def _add(machine: Machine, target: set[Any], values: list[Any]) -> None:
    machine.budget.bytes += 32 * len(values)
    for index, value in enumerate(values):
        check_key(value)
        target.add(value)
        if not index % 512:
            machine.budget.check()


def _put(machine: Machine, index: int) -> None:
    machine.budget.bytes += 40
    machine.memo[index] = machine.stack[-1]


def _memoize(machine: Machine) -> None:
    machine.budget.bytes += 40
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get_byte(machine: Machine) -> None:
    machine.budget.bytes += 8
    machine.stack.append(settled(machine.memo[machine.data[machine.end]]))
    machine.end += 1


def _get(machine: Machine, index: int) -> None:
    machine.push(settled(machine.memo[index]))


def _global(machine: Machine) -> None:
    module = machine.line(1024).decode("utf-8")
    name = machine.line(1024).decode("utf-8")
    machine.find(module, name)


def _stack_global(machine: Machine) -> None:
    name = machine.pop()
    module = machine.pop()
    machine.find(module, name)


def _reduce(machine: Machine) -> None:
    arguments = machine.pop()
    known = machine.pop()
    machine.stack.append(machine.call(known, arguments))


def _new_object(machine: Machine) -> None:
    arguments = machine.pop()
    known = machine.pop()
    if type(known) is Known and not known.by_new:
        raise machine.forbidden(known.name)
    machine.stack.append(machine.call(known, arguments))


def _build(machine: Machine) -> None:
    state = machine.pop()
    machine.build(machine.stack[-1], state)


def _reference(machine: Machine) -> None:
    machine.push(machine.refer(machine.pop()), 100)


def _pop(machine: Machine) -> None:
    machine.stack.pop()


def _duplicate(machine: Machine) -> None:
    machine.push(machine.stack[-1])


_UINT8 = struct.Struct("<B")
_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_UINT64 = struct.Struct("<Q")
_BY_CODE: dict[bytes, Operation] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"(": lambda machine: machine.mark(),
    b"K": _fixed("<B"),
    b"M": _fixed("<H"),
    b"J": _fixed("<i"),
    b"G": _fixed(">d"),
    b"\x8a": _long(_UINT8),
    b"\x8b": _long(_INT32),
    b"X": _text(_UINT32),
    b"\x8c": _text(_UINT8),
    b"\x8d": _text(_UINT64),
    b"B": _bytes(_UINT32),
    b"C": _bytes(_UINT8),
    b"\x8e": _bytes(_UINT64),
    b"\x96": _bytes(_UINT64, bytearray),
    b"T": _bytes(_INT32, _old_text),
    b"U": _bytes(_UINT8, _old_text),
    b"I": _int_line,
    b"L": _int_line,
    b"F": lambda machine: machine.push(float(machine.line(_MAX_NUMBER_LENGTH)), 32),
    b"S": _string_line,
    b"V": _unicode_line,
    b")": _constant(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": _of_marked(tuple),
    b"l": _of_marked(list),
    b"d": _dict_of_marked,
    b"\x91": _frozen,
    b"]": _new(list, 64),
    b"}": _new(dict, 72),
    b"\x8f": _new(set, 216),
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"\x90": _add_items,
    b"q": lambda machine: _put(machine, machine.number(_UINT8)),
    b"r": lambda machine: _put(machine, machine.number(_UINT32)),
    b"p": lambda machine: _put(machine, int(machine.line(_MAX_NUMBER_LENGTH))),
    b"\x94": _memoize,
    b"h": _get_byte,
    b"j": lambda machine: _get(machine, machine.number(_UINT32)),
    b"g": lambda machine: _get(machine, int(machine.line(_MAX_NUMBER_LENGTH))),
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _new_object,
    b"b": _build,
    b"Q": _reference,
    b"0": _pop,
    b"2": _duplicate,
}
OPERATIONS: list[Operation | None] = [_BY_CODE.get(bytes([code])) for code in range(256)]
