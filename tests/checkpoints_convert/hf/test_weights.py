"""A safetensors file that the format's own library refuses is refused in one line with its name."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from checkpoints_convert.hf.weights import Weights, read_header
from galen.errors import DataError

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
}


def write(path, header, data=22, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data)
    )
    return path


def with_(name, **fields):
    return {**GOOD, name: {**GOOD[name], **fields}}


def text_of(old, new):
    text = json.dumps(GOOD)
    assert old in text
    return text.replace(old, new, 1).encode()


BAD = {
    "overlap": (with_("b", data_offsets=[10, 16]), 16),
    "gap": (with_("b", data_offsets=[18, 24]), 24),
    "begins later": (with_("a", data_offsets=[2, 18]), 22),
    "negative": (with_("a", data_offsets=[-16, 0]), 22),
    "negative size": (with_("a", shape=[-2, -2]), 22),
    "end before start": (with_("b", data_offsets=[22, 16]), 22),
    "beyond the end": (with_("b", shape=[300], data_offsets=[16, 616]), 22),
    "float size": (with_("a", shape=[2.0, 2.0]), 22),
    "float offsets": (with_("a", data_offsets=[0.0, 16.0]), 22),
    "exponent": (text_of("[2, 2]", "[2e0, 2]"), 22),
    "texts as size": (with_("a", shape=["2", "2"]), 22),
    "true as size": (with_("a", shape=[True, 4]), 22),
    "no size": (with_("a", shape=None), 22),
    "size of another tensor": (with_("a", shape=[3, 2]), 22),
    "huge size": (with_("a", shape=[2**62, 2**62]), 22),
    "huge beside zero": (with_("a", shape=[2**40, 2**40, 0], data_offsets=[0, 0]), 6),
    "unknown precision": (with_("a", dtype="F33"), 22),
    "precision of no text": (with_("a", dtype=7), 22),
    "wider precision": (with_("a", dtype="F64"), 22),
    "three offsets": (with_("a", data_offsets=[0, 16, 16]), 22),
    "no offsets": ({**GOOD, "a": {"dtype": "F32", "shape": [2, 2]}}, 22),
    "entry is a list": ({**GOOD, "a": []}, 22),
    "remarks of numbers": ({**GOOD, "__metadata__": {"format": 1}}, 22),
    "remarks a list": ({**GOOD, "__metadata__": []}, 22),
    "trailing bytes": (GOOD, 23),
    "cut off": (GOOD, 21),
    "not UTF-8": (text_of('"a"', '"~"').replace(b"~", b"\xff"), 22),
    "half a surrogate pair": (text_of('"a"', '"\\ud800"'), 22),
    "a list": (b"[]", 0),
    "no JSON": (b"{", 0),
    "more after the end": (json.dumps(GOOD).encode() + b"{}", 22),
    "NaN": (text_of("[2, 2]", "[NaN]"), 22),
    "nested": (b"[" * 100_000, 0),
    "nested inside": (b'{"a":' * 100_000, 0),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_the_library_refuses_are_refused(tmp_path, name):
    path = write(tmp_path / "model.safetensors", *BAD[name])
    with pytest.raises(SafetensorError), safe_open(path, "pt"):
        pass
    with pytest.raises(DataError, match=r"model\.safetensors is damaged: ") as error:
        Weights(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, 1, 10, 10_000, 2**40, 2**64 - 1])
def test_a_header_length_that_lies(tmp_path, length):
    path = write(tmp_path / "model.safetensors", GOOD, length=length)
    with pytest.raises(SafetensorError), safe_open(path, "pt"):
        pass
    with pytest.raises(DataError, match="is damaged"):
        read_header(path)


def test_a_header_above_the_limit_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)  # a hole, which takes no room
    started = time.monotonic()
    with pytest.raises(SafetensorError), safe_open(path, "pt"):
        pass
    with pytest.raises(DataError, match="is damaged"):
        read_header(path)
    assert time.monotonic() - started < 5


def test_a_name_that_comes_twice_is_refused(tmp_path):
    """The library takes the last of them; which one is meant nobody knows."""
    text = json.dumps(GOOD).replace('"b"', '"a"').encode()
    with pytest.raises(DataError, match="'a' comes twice"):
        read_header(write(tmp_path / "model.safetensors", text))


def test_a_tensor_in_two_files_is_refused(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.safetensors", GOOD)
    with pytest.raises(DataError, match=r"two\.safetensors and one\.safetensors both hold a"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../secret.safetensors"}},
        {"weight_map": {"a": "/etc/secret.safetensors"}},
        {"weight_map": {"a": "below/model.safetensors"}},
        {"weight_map": {"a": "model\0.safetensors"}},
        {"weight_map": {"a": "model.bin"}},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": None}},
        {"weight_map": ["a"]},
        {"weight_map": None},
        {},
        [],
        {"weight_map": {"a": "gone.safetensors"}},
    ],
)
def test_an_index_that_leads_elsewhere(tmp_path, index):
    (tmp_path / "model").mkdir()
    write(tmp_path / "secret.safetensors", GOOD)
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"model\.safetensors\.index\.json"):
        Weights(tmp_path / "model")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_library_accepts_every_accepted_file(tmp_path_factory, data):
    """With a damaged header, ours reads only what the library would, and at the same offset."""
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    content = bytearray(write(path, {**GOOD, "__metadata__": {"format": "pt"}}).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 23))
        content[position] = data.draw(st.sampled_from(b'0123456789-+.eE"{}[],: aFBUI\\u\x00\xff\n'))
    path.write_bytes(content)
    try:
        tensors = read_header(path)
    except DataError:
        return
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(tensors)
        for name, stored in tensors.items():
            tensor = file.get_tensor(name)
            assert (tuple(tensor.shape), tensor.dtype) == (stored.shape, stored.dtype)
