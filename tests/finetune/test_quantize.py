import hashlib
import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluation.backends import model_folder
from finetune import quantize
from finetune.quantization import measurement, methods
from finetune.quantization.measurement import Measurement, table
from galen import api_results, manifest
from galen.errors import DataError, UsageError
from tests.checkpoints_convert.test_checksums import flip


@pytest.fixture(scope="module")
def model(make_llama):
    """A model whose sizes 4-bit groups of 128 divide.

    Large steps between weights bring 8 bit closer than 4 bit.
    """
    return make_llama(
        num_hidden_layers=2, hidden_size=128, intermediate_size=256, max_position_embeddings=512
    )


def distance(model, folder):
    """Return the largest difference of any probability between a folder and the model."""
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        first, second = (
            AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
            .eval()(tokens)
            .logits.softmax(-1)
            for place in (model, folder)
        )
    return (first - second).abs().max().item()


def check_methods(model, question_file, output, capsys, four, eight):
    """Quantize by two methods; check folders, closeness, sizes and table.

    A second run measures nothing again.
    """
    arguments = [
        "--model",
        model,
        "--methods",
        f"{four},{eight}",
        "--questions",
        question_file,
        "--limit",
        8,
        "--output",
        output,
    ]
    arguments = [
        str(argument)
        for argument in [
            *arguments,
            "--calibration",
            question_file,
            "--samples",
            16,
            "--max-length",
            64,
        ]
    ]
    assert quantize.main(arguments) == 0
    printed, progress = capsys.readouterr()
    for name in (model.name, four, eight):
        assert f"{name}: accuracy: 8 of 8 questions (100%)" in progress
    printed = printed[printed.index("| |") :]  # llmcompressor's log goes to standard output, too
    assert (output / "table.md").read_text() in printed
    far, near = distance(model, output / four), distance(model, output / eight)
    assert 0 < near < far < 0.9
    sizes = [
        json.loads((output / f"{name}.json").read_text())["measured"]["bytes_on_disk"]
        for name in ("original", eight, four)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
    result = api_results.read_quantization(output, model, [four, eight])
    assert result.models[four].bytes_on_disk == sizes[2] < result.original.bytes_on_disk
    assert 0 <= result.models[eight].accuracy <= 1
    stamp = (output / four / "model.safetensors").stat().st_mtime_ns
    assert quantize.main(arguments) == 0
    assert capsys.readouterr().out == printed  # the same figures, taken from where they stand
    assert (output / four / "model.safetensors").stat().st_mtime_ns == stamp
    manifest = json.loads((output / four / "manifest.json").read_text())
    assert manifest["stage"] == "quantize" and "model.safetensors" in {
        record["path"] for record in manifest["outputs"]
    }


def test_bitsandbytes_in_four_and_eight_bit(model, question_file, tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    check_methods(model, question_file, tmp_path / "out", capsys, "bnb4", "bnb8")


@pytest.mark.parametrize("four", ["gptq", "awq"])
def test_llmcompressor_in_four_and_eight_bit(model, question_file, tmp_path, capsys, four):
    pytest.importorskip("llmcompressor")
    check_methods(model, question_file, tmp_path / "out", capsys, four, "int8")


@pytest.mark.parametrize(("width", "size"), [(256, 128), (576, 64), (96, 32)])
def test_four_bit_goes_by_groups_that_divide_all_layers_but_the_last(width, size):
    layers = {
        "up_proj": torch.nn.Linear(width, 384),
        "down_proj": torch.nn.Linear(384, width),
        "lm_head": torch.nn.Linear(7, 9),
    }
    assert methods.group_size(torch.nn.ModuleDict(layers)) == size
    layers["up_proj"] = torch.nn.Linear(100, 384)
    with pytest.raises(
        DataError, match=r"none of which divides all layers' inputs \(\[100, 384\]\)"
    ):
        methods.group_size(torch.nn.ModuleDict(layers))


def test_the_table_pairs_accuracies_with_the_first_model():
    first = Measurement(270_000_000, 540_000_000, 1000.0, 20.0, [1] * 30 + [0] * 10)
    second = Measurement(90_000_000, 140_000_000, 500.0, 10.0, [1] * 28 + [0] * 12)
    lines = table({"original": first, "awq": second}).splitlines()
    assert lines[2].startswith("| original | 270.0 | 540.0 | 1,000 | 20.0 | 75.0% [59.8, 85.8] |")
    assert lines[3].startswith("| awq | 90.0 | 140.0 | 500 | 10.0 | 70.0% [54.6, 81.9] | -5.0 [")


@pytest.mark.parametrize(("width", "method"), [(96, "bnb4"), (100, "gptq")])
def test_widths_that_a_method_cannot_store_are_reported_before_any_work(
    make_llama, tmp_path, monkeypatch, width, method
):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    model = make_llama(num_hidden_layers=1, intermediate_size=width)
    (tmp_path / "texts.jsonl").write_text('{"text": "Dose"}\n')
    arguments = ["--model", str(model), "--methods", method, "--output", str(tmp_path / "out")]
    with pytest.raises(DataError, match=rf"{width}"):
        quantize.main([*arguments, "--calibration", str(tmp_path / "texts.jsonl")])
    assert not (tmp_path / "out").exists()


def test_a_folder_in_four_bit_of_any_width_is_evaluated(make_llama, question_file, tmp_path):
    """Stored by transformers, with widths that bitsandbytes' kernels for some CPUs lack."""
    pytest.importorskip("bitsandbytes")
    from evaluation import run as evaluate
    from finetune.training.model_loading import bitsandbytes_config

    model = make_llama(
        num_hidden_layers=1, hidden_size=72, intermediate_size=100, max_position_embeddings=512
    )
    stored = shutil.copytree(model, tmp_path / "stored")
    config = bitsandbytes_config("4bit", torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(model, quantization_config=config).save_pretrained(stored)
    shutil.copy(question_file, tmp_path / "q.jsonl")
    (tmp_path / "q.yaml").write_text("kind: multiple_choice\nfile: q.jsonl\n")
    given = (
        "--model",
        stored,
        "--tasks",
        tmp_path / "q.yaml",
        "--data",
        tmp_path,
        "--limit",
        4,
        "--output",
        tmp_path / "scores",
    )
    assert not evaluate.main([str(argument) for argument in given])
    assert (
        json.loads((tmp_path / "scores" / "results.json").read_text())["tasks"]["q"]["samples"] == 4
    )


def test_an_altered_model_is_read_only_when_asked(make_llama, tmp_path, caplog):
    pytest.importorskip("bitsandbytes")
    folder = make_llama(num_hidden_layers=1, hidden_size=128)
    manifest.write(
        folder / manifest.NAME,
        stage="merge",
        inputs=[],
        config={},
        outputs=[folder / "model.safetensors"],
        counts={},
    )
    flip(folder / "model.safetensors")
    arguments = [
        "--model",
        str(folder),
        "--methods",
        "bnb8",
        "--output",
        str(tmp_path / "below" / "out"),
    ]
    with pytest.raises(
        DataError,
        match=r"model\.safetensors was altered: its SHA-256 is not the one in its manifest",
    ):
        quantize.main(arguments)
    assert not (tmp_path / "below").exists()
    assert quantize.main([*arguments, "--no-verify"]) == 0
    assert f"{folder} is read without comparing it" in caplog.text
    assert (tmp_path / "below" / "out" / "bnb8" / "model.safetensors").is_file()


def test_a_limit_takes_the_sample_that_evaluation_takes(
    model, question_file, tmp_path, monkeypatch
):
    pytest.importorskip("bitsandbytes")
    asked = []

    def measured(folder, questions, protocol):
        asked.append([item.id for item in questions])
        return Measurement(1, 1, 1.0, 1.0, [0] * len(questions))

    monkeypatch.setattr(measurement, "measure", measured)
    arguments = [
        "--model",
        model,
        "--methods",
        "bnb8",
        "--questions",
        question_file,
        "--limit",
        8,
        "--output",
        tmp_path / "out",
    ]
    assert quantize.main([str(argument) for argument in arguments]) == 0
    ids = [json.loads(line)["id"] for line in question_file.read_text().splitlines()]
    smallest = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:8]
    assert asked == [[name for name in ids if name in smallest]] * 2
    assert asked[0] != ids[:8]


def test_two_starts_at_once_are_reported(model, tmp_path):
    from galen import lock

    with lock.hold(tmp_path / "out"), pytest.raises(DataError, match="is being written by"):
        quantize.main(
            ["--model", str(model), "--methods", "bnb4", "--output", str(tmp_path / "out")]
        )


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("awq5", "unknown method 'awq5'; did you mean 'awq'"),
        (",", "names no method"),
        ("bnb4,bnb2", "unknown method 'bnb2'"),
    ],
)
def test_mistakes_are_reported(model, tmp_path, methods, message):
    pytest.importorskip("bitsandbytes")
    with pytest.raises(UsageError, match=message):
        quantize.main(
            ["--model", str(model), "--methods", methods, "--output", str(tmp_path / "out")]
        )


def test_a_missing_package_and_missing_calibration_are_reported(model, tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="awq needs llmcompressor: pip install"):
        quantize.main(
            ["--model", str(model), "--methods", "awq", "--output", str(tmp_path / "out")]
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match=r"gptq needs texts .* --calibration"):
        quantize.main(
            ["--model", str(model), "--methods", "gptq", "--output", str(tmp_path / "out")]
        )


def test_a_method_made_with_other_calibration_texts_is_not_taken_for_this_one(
    model, question_file, tmp_path, monkeypatch
):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    folder = tmp_path / "out" / "gptq"
    config = {
        "model": model_folder.hashes(model),
        "method": "gptq",
        "calibration": "other",
        "samples": 128,
        "max_length": 512,
    }
    folder.mkdir(parents=True)
    manifest.write(
        folder / "manifest.json", stage="quantize", inputs=[], config=config, outputs=[], counts={}
    )
    arguments = [
        "--model",
        str(model),
        "--methods",
        "gptq",
        "--output",
        str(tmp_path / "out"),
        "--calibration",
        str(question_file),
    ]
    with pytest.raises(UsageError, match=r"belongs to another run \(calibration: "):
        quantize.main(arguments)
    with pytest.raises(UsageError, match="--samples must be at least 1"):
        quantize.main([*arguments, "--samples", "0"])
