"""Pickles that try to run something, to damage memory or to run for ever.

Those that run something make a file that must not appear.

`attacks(mark)` gives them by name. Each leaves one value on the stack and ends with STOP, so that
`spliced` can put it into a pickle that is right otherwise; the few that end in another way are in
`broken`.
"""

import io
import pickle
import struct
import zipfile

import torch


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module, qualified):
    return f"c{module}\n{qualified}\n".encode()


def dotted(module, qualified):
    """A name as protocol 4 has it, which may reach through what it names."""
    return text(module) + text(qualified) + b"\x93"


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(body, protocol=4):
    return b"\x80" + bytes([protocol]) + body + b"."


def number(value):
    return b"J" + struct.pack("<i", value)


def long(value):
    return b"\x8a\x0b" + value.to_bytes(11, "little")


def array(dtype, shape, content):
    made = call(
        name("numpy._core.multiarray", "_reconstruct"),
        name("numpy", "ndarray"),
        b"(K\x00t",
        b"C\x01b",
    )
    return made + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def dtype(code, rest=b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"):
    return (
        call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
        + b"(K\x03"
        + text("<")
        + rest
        + b"tb"
    )


def tensor(offset, size, stride, count=4, more=b""):
    """A tensor of a storage that is pickled with it."""
    storage = pickle.dumps(torch.zeros(count).untyped_storage(), 4)[2:-1]
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage,
        offset,
        size,
        stride,
        b"\x89",
        call(name("collections", "OrderedDict")),
        more,
    )


def laughs(make, rounds=60):
    """Twice the same in twice the same … : few bytes, endless for whoever goes through it."""
    return make(b"K\x01" + b"K\x01") + b"".join(
        b"q\x01" + b"0" + make(b"h\x01" + b"h\x01") for _ in range(rounds)
    )


def commands(mark):
    """What would make the file by itself."""
    command, made = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    shell, code, path = (
        text(command),
        text(made),
        call(name("pathlib", "PosixPath"), text(str(mark))),
    )
    system, getter = name("os", "system"), name("builtins", "getattr")
    inner = whole(call(system, shell))
    bare = io.BytesIO()
    torch.save(Planted(command), bare, _use_new_zipfile_serialization=False)
    zipped = io.BytesIO()
    torch.save(Planted(command), zipped)
    stream = call(name("_io", "BytesIO"), blob(zipped.getvalue()))
    parallel = "megatron.core.parallel_state"
    return {
        "os.system": call(system, shell),
        "posix.system": call(name("posix", "system"), shell),
        "nt.system": call(name("nt", "system"), shell),
        "subprocess.Popen": call(
            name("subprocess", "Popen"), b"(" + text("touch") + text(str(mark)) + b"l"
        ),
        "subprocess.check_output": call(
            name("subprocess", "check_output"), b"(" + text("touch") + text(str(mark)) + b"l"
        ),
        "pty.spawn": call(name("pty", "spawn"), b"(" + text("touch") + text(str(mark)) + b"l"),
        "eval": call(name("builtins", "eval"), code),
        "exec": call(name("builtins", "exec"), code),
        "__builtin__.eval": call(name("__builtin__", "eval"), code),
        "import": (
            call(getter, call(name("builtins", "__import__"), text("os")), text("system"))
            + b"("
            + shell
            + b"tR"
        ),
        "importlib": (
            call(getter, call(name("importlib", "import_module"), text("os")), text("system"))
            + b"("
            + shell
            + b"tR"
        ),
        "open": call(name("builtins", "open"), text(str(mark)), text("w")),
        "pickle.loads": call(name("pickle", "loads"), blob(inner)),
        "runpy": call(
            name("runpy", "_run_code"),
            call(name("builtins", "compile"), code, text("x"), text("exec")),
            b"}",
        ),
        "code": call(name("code", "interact")),
        "timeit": call(
            name("timeit", "timeit"), code, text("pass"), b"G" + struct.pack(">d", 0.0), b"K\x01"
        ),
        "bdb": call(name("bdb", "Bdb.run"), call(name("bdb", "Bdb")), code),
        "numpy runstring": call(name("numpy.testing._private.utils", "runstring"), code, b"}"),
        "torch collect_env": call(name("torch.utils.collect_env", "run"), shell),
        "a dotted name through parallel_state": (
            dotted(parallel, "torch.os.system") + b"(" + shell + b"tR"
        ),
        "a dotted name through a class of the list": (
            dotted("pathlib", "PosixPath.touch") + b"(" + path + b"tR"
        ),
        "a dotted name through argparse": dotted("argparse", "Namespace.__init__.__globals__"),
        "a name of several lines": (
            dotted("os", "system\n\x1b[2Jerror: none") + b"(" + shell + b"tR"
        ),
        "a dotted name in the module": dotted("os.path", "os.system") + b"(" + shell + b"tR",
        "a member of parallel_state": (
            call(getter, name(parallel, "os"), text("system")) + b"(" + shell + b"tR"
        ),
        "a module of Megatron": name(parallel, "os") + b"(tR",
        "MagicMock of a fusion": call(
            name("megatron.core.fusions.fused_layer_norm", "MagicMock"), shell
        ),
        "a function of Megatron": call(name("megatron.core.utils", "run"), shell),
        "a class of Megatron that is not in the list": call(
            name("megatron.core.transformer.enums", "Runner"), shell
        ),
        "a class of NeMo": call(name("nemo.lightning.io.mixin", "IOMixin"), shell),
        "getattr on a path": call(getter, path, text("touch")) + b"(tR",
        "getattr on an enumeration": call(getter, name("signal", "Signals"), text("__init__")),
        "getattr on a method of an enumeration": call(
            getter, name("signal", "Signals"), text("mro.__self__")
        ),
        "getattr on a class": call(getter, name("builtins", "dict"), text("get")),
        "a stand-in is called": call(
            call(name("megatron.core.enums", "ModelType"), b"K\x01"), shell
        ),
        "functools.partial": call(call(name("functools", "partial"), system, shell)),
        "attrgetter": call(call(name("operator", "attrgetter"), text("touch")), path) + b"(tR",
        "methodcaller": call(call(name("operator", "methodcaller"), text("touch")), path),
        "a class for its __reduce__": call(
            name("copyreg", "_reconstructor"),
            name("pathlib", "PosixPath"),
            name("builtins", "object"),
            b"N",
        ),
        "copyreg.__newobj__": call(
            name("copyreg", "__newobj__"), name("subprocess", "Popen"), shell
        ),
        "FunctionType": call(
            name("types", "FunctionType"), call(name("types", "CodeType"), b"K\x00"), b"}"
        ),
        "torch.load": call(name("torch", "load"), stream),
        "torch.serialization.load": call(
            name("torch.serialization", "load"), stream, b"N", name("pickle", "Unpickler")
        ),
        "_load_from_bytes": call(name("torch.storage", "_load_from_bytes"), blob(bare.getvalue())),
        "_load_from_bytes, an archive": call(
            name("torch.storage", "_load_from_bytes"), blob(zipped.getvalue())
        ),
        "safe_load_from_bytes": call(
            name("megatron.core.safe_globals", "safe_load_from_bytes"), blob(bare.getvalue())
        ),
        "_rebuild_from_type_v2": call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            system,
            name("torch", "Tensor"),
            b"(" + shell + b"t",
            b"}",
        ),
        "_rebuild_parameter of a command": call(
            name("torch._utils", "_rebuild_parameter"), call(system, shell), b"\x89", b"}"
        ),
        "defaultdict": call(name("collections", "defaultdict"), system),
        "OrderedDict of a command": call(name("collections", "OrderedDict"), call(system, shell)),
        "map": call(
            name("builtins", "list"), call(name("builtins", "map"), system, b"(" + shell + b"l")
        ),
        "filter as a set": call(
            name("builtins", "set"), call(name("builtins", "filter"), system, b"(" + shell + b"l")
        ),
        "INST": b"(" + shell + b"ios\nsystem\n",
        "OBJ": b"(" + system + shell + b"o",
        "NEWOBJ": name("subprocess", "Popen") + b"(" + shell + b"t\x81",
        "NEWOBJ of a function of the list": (
            name("builtins", "getattr") + b"(" + path + text("touch") + b"t\x81"
        ),
        "NEWOBJ_EX": name("subprocess", "Popen") + b"(" + shell + b"t}\x92",
        "NEWOBJ_EX of the list": name("argparse", "Namespace") + b")}" + text("x") + b"K\x01s\x92",
        "a reference with a class": b"(" + text("module") + system + shell + b"tQ",
        "an optimizer is made": call(name("torch.optim.adamw", "AdamW"), b"]"),
        "BytesIO with an attack": stream + b"(" + blob(inner) + b"K\x00Ntb0" + call(system, shell),
    }


def states(mark):
    """What changes classes, or passes for something else."""
    path = call(name("pathlib", "PosixPath"), text(str(mark)))
    fake = b"}" + text("is_file") + name("builtins", "str") + b"s"
    namespace = name("argparse", "Namespace") + b")\x81"
    planted = name("torch.distributed.checkpoint.metadata", "BytesStorageMetadata") + b")\x81"
    return {
        "slot state on a class": name("pathlib", "PosixPath") + b"N" + fake + b"\x86b",
        "state on a class": name("pathlib", "PosixPath") + fake + b"b",
        "slot state on an object": path + b"N" + fake + b"\x86b",
        "state on a type of PyTorch": name("torch", "Size") + fake + b"b",
        "state on a data type": name("torch", "float32") + fake + b"b",
        "state on an enumeration": name("signal", "Signals") + fake + b"b",
        "__class__ of a namespace": (
            namespace + b"}" + text("__class__") + name("builtins", "dict") + b"sb"
        ),
        "__dict__ of a namespace": namespace + b"}" + text("__dict__") + b"}sb",
        "__setstate__ of a stand-in": (
            planted + b"}" + text("__setstate__") + name("builtins", "list") + b"sb"
        ),
        "state of another form": planted + b"N" + fake + b"\x86b",
        "a namespace with keys that are no text": namespace + b"}K\x01K\x02sb",
        "an item of a stand-in": namespace + text("a") + b"K\x01s",
        "an item appended to a stand-in": namespace + b"K\x01a",
        "an item of a class": name("builtins", "dict") + text("a") + b"K\x01s",
    }


def copied(value, function, *more, times=700):
    """The same value passed to a function again and again, which would copy it each time."""
    prepared = value + b"q\x010" + function + b"q\x020" + b"(h\x01" + b"".join(more) + b"tq\x030"
    return prepared + b"(" + b"h\x02h\x03R" * times + b"l"


def in_storages(depth):
    """A storage whose pickle loads another one twice, which does the same ….

    The reader would start 2**depth times.
    """
    file = io.BytesIO()
    torch.save(torch.zeros(4).untyped_storage(), file, _use_new_zipfile_serialization=False)
    right = inner = file.getvalue()
    load = name("torch.storage", "_load_from_bytes")
    for _ in range(depth):
        twice = blob(inner) + b"q\x010" + load + b"q\x020" + b"h\x02(h\x01tR0" * 2
        inner = right[:2] + twice + right[2:]
    return call(load, blob(inner))


def colliding(count):
    """Tuples of two numbers whose hashes are all equal, by the formula of Python's tuple hash."""
    first, second, fifth, size = (
        11400714785074694791,
        14029467366897019727,
        2870177450012600261,
        2**64,
    )
    collisions = []
    number = 0
    while len(collisions) < count:
        number += 1
        mixed = (fifth + number * second) % size
        mixed = (mixed << 31 | mixed >> 33) % size * first % size
        other = (2**53 - mixed) * pow(second, -1, size) % size
        other -= size if other >= size // 2 else 0
        if abs(other) < 2**60:
            collisions.append(
                struct.pack("<ci", b"J", number) + b"\x8a\x08" + struct.pack("<q", other) + b"\x86"
            )
    return collisions


def costly(_):
    """Content whose cost grows each time that a reader copies, prints or compares it.

    The cost is time or memory; the file holds the content once.
    """
    load = name("torch.storage", "_load_from_bytes")
    letters, zeros = text("a" * 10**5), blob(b"\0" * 10**5)
    stored = io.BytesIO()
    torch.save(
        torch.zeros(10**5, dtype=torch.uint8).untyped_storage(),
        stored,
        _use_new_zipfile_serialization=False,
    )
    shape = b"J" + struct.pack("<i", 10**5) + b"\x85"
    fields = b"}(" + b"".join(text(f"f{n}") + b"N" for n in range(5000)) + b"u"
    namespace = name("argparse", "Namespace")
    path = (
        text("a/" * 1500)
        + b"q\x010("
        + b"h\x01" * 1500
        + b"tq\x020"
        + name("pathlib", "PosixPath")
        + b"q\x030"
    )
    return {
        "storages in storages twice": in_storages(25),
        "paths of paths": path + b"(" + b"h\x03h\x02R" * 700 + b"l",
        "copies of a list": copied(
            b"(" + b"N" * 10**5 + b"l", name("builtins", "list"), times=5000
        ),
        "copies of a bytearray": copied(zeros, name("builtins", "bytearray"), times=10**4),
        "copies of a text": copied(letters, name("_codecs", "encode"), text("latin1"), times=10**4),
        "copies of an array": copied(
            zeros,
            name("numpy._core.numeric", "_frombuffer"),
            dtype("u1"),
            shape,
            text("C"),
            times=10**4,
        ),
        "copies of a storage": copied(blob(stored.getvalue()), load, times=10**4),
        "copies of fields": (
            fields + b"q\x010" + namespace + b"q\x020(" + b"h\x02)\x81h\x01b" * 10**4 + b"l"
        ),
        "tuples that collide": b"(" + b"N".join(colliding(3000)) + b"Nd",
        "tuples that collide, in a set": b"\x8f(" + b"".join(colliding(3000)) + b"\x90",
        "tuples that collide, in a frozen set": b"(" + b"".join(colliding(3000)) + b"\x91",
        "the negative of a tensor": tensor(
            b"K\x00", b"K\x04\x85", b"K\x01\x85", more=b"}" + text("neg") + b"\x88s"
        ),
    }


def bombs(_):
    """Pickles that take more memory or time than available."""
    pair = laughs(lambda items: b"(" + items + b"t")
    return {
        "a number of 2 GiB": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "a number of 100 kB": b"\x8b" + struct.pack("<i", 10**5) + b"\x7f" * 10**5,
        "a line of digits": b"I" + b"9" * 10**5 + b"\n",
        "a text of 2**62 bytes": b"\x8d" + struct.pack("<Q", 2**62),
        "bytes of 2**62 bytes": b"\x8e" + struct.pack("<Q", 2**62),
        "a bytearray of 2**40 bytes": b"\x96" + struct.pack("<Q", 2**40),
        "an old text of negative size": b"T" + struct.pack("<i", -1),
        "a frame of 2**62 bytes": b"\x95" + struct.pack("<Q", 2**62) + b"N",
        "lists in lists twice": laughs(lambda items: b"(" + items + b"l"),
        "dicts in dicts twice": laughs(
            lambda items: b"(" + text("a") + items[:2] + text("b") + items[2:] + b"d"
        ),
        "tuples in tuples twice": pair,
        "tuples in tuples twice, as a key": b"}" + pair + b"K\x01s",
        "frozen sets in frozen sets": laughs(lambda items: b"(" + items + b"\x91"),
        "tuples in tuples twice, in a set": b"\x8f(" + pair + b"\x90",
        "duplicates": (
            b"(K\x01"
            + b"2" * 100
            + b"t"
            + b"".join(b"2" * 50 + b"0" * 49 + b"\x86" for _ in range(60))
        ),
        "100,000 tuples deep": b"K\x01" + b"\x85" * 100_000,
        "100,000 lists deep": b"]" * 100_000 + b"a" * 99_999,
        "keys that collide": (
            b"}(" + b"".join(long(n * (2**61 - 1)) + b"N" for n in range(1, 20_000)) + b"u"
        ),
        "a long text in lists twice": (
            text("x" * 4000) + b"q\x020" + laughs(lambda items: b"(" + items + b"h\x02l", 20)
        ),
        "a list in itself": b"]q\x01h\x01a",
        "a dict in itself": b"}q\x01" + text("a") + b"h\x01s",
    }


def memory(_):
    """Pickles that read or write out of bounds, if NumPy or PyTorch trust them."""
    numbers = name("numpy", "ndarray")
    content, one = blob(b"\0" * 8), b"(K\x01t"
    return {
        "an array of objects": array(dtype("O8"), one, content),
        "an array larger than its content": array(
            dtype("f8"), b"(" + number(2**30) + b"t", content
        ),
        "an array of negative size": array(dtype("f8"), b"(" + number(-1) + b"t", content),
        "an array of a list": array(dtype("f8"), one, b"(K\x01l"),
        "an array without content": call(
            name("numpy._core.multiarray", "_reconstruct"), numbers, b"(K\x00t", b"C\x01b"
        ),
        "an array of another class": call(
            name("numpy._core.multiarray", "_reconstruct"),
            name("numpy", "dtype"),
            b"(K\x00t",
            b"C\x01b",
        ),
        "an array made directly": call(
            numbers, b"(" + number(2**20) + b"t", dtype("f8"), content, number(-8), one
        ),
        "an array by NEWOBJ": numbers + b"((" + number(2**20) + b"tt\x81",
        "a number that is an object": call(
            name("numpy._core.multiarray", "scalar"), dtype("O8"), content
        ),
        "a number of more bytes": call(
            name("numpy._core.multiarray", "scalar"), dtype("f8"), blob(b"1")
        ),
        "a record type": call(name("numpy", "dtype"), text("V8"), b"\x89", b"\x88"),
        "a data type with fields": dtype(
            "f8", b"(" + text("a") + b"t}NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        ),
        "numpy.load": call(name("numpy", "load"), text("x"), b"N", b"\x88"),
        "numpy's void": call(name("numpy", "void"), content),
        "a tensor behind its storage": tensor(number(100), one, one),
        "a tensor before its storage": tensor(number(-1), one, one),
        "a tensor longer than its storage": tensor(b"K\x00", b"(" + number(2**30) + b"t", one),
        "a tensor of endless rows": tensor(
            b"K\x00", b"(" + number(2**30) + b"K\x04t", b"(K\x00K\x01t"
        ),
        "a tensor of negative strides": tensor(b"K\x03", b"(K\x04t", b"(" + number(-1) + b"t"),
        "a tensor of large strides": tensor(b"K\x00", b"(K\x02t", b"(" + number(2**30) + b"t"),
        "a tensor with too few strides": tensor(b"K\x00", b"(K\x02K\x02t", one),
        "a tensor of no storage": call(
            name("torch._utils", "_rebuild_tensor_v2"), b"N", b"K\x00", one, one, b"\x89", b"}"
        ),
        "_rebuild_device_tensor_from_numpy": call(
            name("torch._utils", "_rebuild_device_tensor_from_numpy"),
            content,
            name("torch", "float32"),
            text("cpu"),
            b"\x89",
        ),
        "_rebuild_sparse_tensor": call(name("torch._utils", "_rebuild_sparse_tensor"), b"N", b"N"),
        "a class of an extension": b"\x82\x01",
        "a class of an extension, 2 bytes": b"\x83\x01\x00",
        "a class of an extension, 4 bytes": b"\x84\x01\x00\x00\x00",
        "a buffer from outside": b"\x97",
        "a reference by a line": b"Pstorage\n",
        "a reference to a number": b"K\x01Q",
        "a mark as a value": b"(K\x01\x86",
        "nothing from the memo": b"j\xff\xff\xff\x7f",
        "an empty stack": b"0000",
        "a deep memo": (
            b"N"
            + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - n) for n in range(50))
            + b"j\x01\x00\x00\x00"
        ),
    }


class Planted:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def blob(data):
    return b"B" + struct.pack("<I", len(data)) + data


def attacks(mark):
    """Return the bodies by name: without a protocol and STOP."""
    return {
        key: body
        for group in (commands, states, bombs, costly, memory)
        for key, body in group(mark).items()
    }


def spliced(right, body):
    """Put an attack into a valid pickle.

    It does its work, its value is dropped, and the valid value comes out.
    """
    assert right.endswith(b".")
    return right[:-1] + body + b"0."


def broken(right, mark):
    """Return files that are no pickle, or more than one, by name."""
    attack = whole(call(name("os", "system"), text(f"touch {mark}")))
    return {
        "behind the end": right + attack,
        "before the beginning": attack + right,
        "more behind the end": right + b"\0" * 1000,
        "without its end": right[:-1],
        "cut": right[: len(right) // 2],
        "empty": b"",
        "no pickle": b"\xff\xfe" * 100,
        "a protocol that is not known": b"\x80\x63" + right[2:],
        "two values": right[:-1] + b"K\x01.",
        "protocol 0": f"cos\nsystem\n(S'touch {mark}'\ntR.".encode(),
    }


def archive(pickled, parts=None, twice=(), compressed=False):
    """Return what torch.save writes, around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    ) as target:
        for key, content in [
            ("x/data.pkl", pickled),
            *((f"x/{part}", data) for part, data in (parts or {}).items()),
            *twice,
        ]:
            target.writestr(key, content)
    return file.getvalue()
