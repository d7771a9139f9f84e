"""The same mistake has the same exit code in every room.

It is 2 for the command or the recipe, 1 for files.
"""

import importlib
import json

import pytest

from checkpoints_convert import hf_to_megatron
from galen import cli
from tests.data_prep.material import many_records, write_medline

MISSING_FILE = [
    (
        "data_prep.preprocess",
        ["--input", "none.jsonl", "--output-prefix", "o", "--tokenizer-model", "none"],
    ),
    ("data_prep.report", ["none"]),
    ("data_prep.describe", ["none"]),
    ("finetune.train", ["train.yaml", "data.train=none.jsonl", "output=o", "model.path=MODEL"]),
    (
        "evaluation.run",
        ["--model", "MODEL", "--tasks", "mesh_topics", "--data", "none", "--output", "o"],
    ),
    ("evaluation.report", ["none", "--output", "o.html"]),
    ("evaluation.rationales", ["none", "--task", "x", "--output", "o.jsonl"]),
    ("evaluation.agreement", ["--scores", "none", "--ratings", "none"]),
    (
        "evaluation.build",
        [
            "rationales",
            "--reader",
            "galen",
            "--questions",
            "none.jsonl",
            "--output",
            "o",
            "--local-model",
            "none",
        ],
    ),
]
MISSING_MODEL = [
    (
        "data_prep.preprocess",
        ["--input", "a.jsonl", "--output-prefix", "o", "--tokenizer-model", "none"],
    ),
    ("checkpoints_convert.hf_to_megatron", ["--hf", "none", "--output", "o"]),
    ("checkpoints_convert.megatron_to_hf", ["--megatron", "none", "--output", "o"]),
    ("checkpoints_convert.verify", ["--hf", "none", "--megatron", "none"]),
    ("finetune.train", ["train.yaml", "data.train=a.jsonl", "output=o", "model.path=none"]),
    ("finetune.quantize", ["--model", "none", "--output", "o", "--methods", "nf4"]),
    (
        "evaluation.run",
        ["--model", "none", "--tasks", "mesh_topics", "--data", ".", "--output", "o"],
    ),
    (
        "evaluation.run",
        [
            "--model",
            "MODEL",
            "--adapter",
            "none",
            "--tasks",
            "mesh_topics",
            "--data",
            ".",
            "--output",
            "o",
        ],
    ),
    (
        "evaluation.build",
        [
            "rationales",
            "--reader",
            "galen",
            "--questions",
            "q.jsonl",
            "--output",
            "o",
            "--local-model",
            "none",
        ],
    ),
]
WITH_RECIPE = [
    "data_prep.curate",
    "finetune.train",
    "finetune.merge",
    "megatron_ext.pretrain",
    "megatron_ext.plan",
]
BARE = [
    "data_prep.preprocess",
    "data_prep.report",
    "checkpoints_convert.hf_to_megatron",
    "evaluation.run",
    "evaluation.report",
    "finetune.quantize",
]
WRONG_NAME = [
    ("evaluation.run", ["--model", "MODEL", "--tasks", "medqqa", "--data", ".", "--output", "o"]),
    (
        "evaluation.run",
        [
            "--model",
            "MODEL",
            "--tasks",
            "medqa",
            "--protocol",
            "lm_evl",
            "--data",
            ".",
            "--output",
            "o",
        ],
    ),
    (
        "evaluation.build",
        [
            "rationales",
            "--reader",
            "medqqa",
            "--questions",
            "q.jsonl",
            "--output",
            "o",
            "--local-model",
            "none",
        ],
    ),
    ("data_prep.download", ["medlin", "--output", "o"]),
    ("data_prep.curate", ["curate.yaml", "sources.0.reader=medlin"]),
    (
        "finetune.train",
        [
            "train.yaml",
            "data.train=q.jsonl",
            "output=o",
            "model.path=MODEL",
            "data.protocol=lm_evl",
        ],
    ),
    (
        "finetune.train",
        [
            "train.yaml",
            "data.train=q.jsonl",
            "output=o",
            "model.path=MODEL",
            "training.lerning_rate=1",
        ],
    ),
]

OTHER_OUTPUT = [
    ("data_prep.curate", ["curate.yaml", "sources.0.path=a.xml", "output=there"]),
    (
        "data_prep.preprocess",
        ["--input", "a.jsonl", "--output-prefix", "there/p", "--tokenizer-model", "MODEL"],
    ),
    ("checkpoints_convert.hf_to_megatron", ["--hf", "MODEL", "--output", "there"]),
    ("checkpoints_convert.megatron_to_hf", ["--megatron", "MEGATRON", "--output", "there"]),
    (
        "evaluation.run",
        ["--model", "MODEL", "--tasks", "mesh_topics", "--data", ".", "--output", "there"],
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch, tied_llama):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    (tmp_path / "MODEL").symlink_to(tied_llama)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    record = {"id": "1", "question": "?", "options": ["a", "b"], "answer": "A"}
    (tmp_path / "q.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "test.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "train.yaml").write_text(
        "model: {path: x}\ndata: {train: x}\noptimizer: {lr: 1}\ntraining: {train_iters:"
        " 1}\noutput: x\n"
    )
    (tmp_path / "curate.yaml").write_text(
        "output: o\nsources: [{reader: medline, path: 'none/*.xml'}]\n"
    )
    return tmp_path


@pytest.fixture
def outputs(folder):
    """What other work left where the commands would write."""
    write_medline(folder / "a.xml", many_records(1, 3))
    (folder / "there" / "iter_0000000").mkdir(parents=True)
    for name in (
        "p_text_document.bin",
        "config.json",
        "iter_0000000/metadata.json",
        "iter_0000000/.metadata",
    ):
        (folder / "there" / name).write_text("{}")
    hf_to_megatron.main(["--hf", "MODEL", "--output", "MEGATRON"])


def exit_code(module, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: importlib.import_module(module).main(list(arguments)))
    return stop.value.code


@pytest.mark.parametrize(("module", "arguments"), MISSING_FILE + MISSING_MODEL)
def test_what_is_not_there_is_1(folder, capsys, module, arguments):
    assert exit_code(module, arguments) == 1
    assert "none" in capsys.readouterr().err
    assert not (folder / "o").exists()
    assert not (folder / "none").exists()


@pytest.mark.parametrize(("module", "arguments"), WRONG_NAME)
def test_an_unknown_name_or_key_is_2(folder, capsys, module, arguments):
    assert exit_code(module, arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(("module", "arguments"), OTHER_OUTPUT)
def test_an_output_of_other_work_is_2(folder, outputs, capsys, module, arguments):
    before = sorted(folder.joinpath("there").rglob("*"))
    assert exit_code(module, arguments) == 2
    assert "there" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.joinpath("there").rglob("*")) == before


@pytest.mark.parametrize("module", WITH_RECIPE)
def test_a_recipe_that_cannot_be_read_is_2(folder, capsys, module):
    arguments = ["--gpus", "8", "--gpu", "h100-80gb"] if module.endswith("plan") else []
    for content in (None, "a: [", "- 1\n", "nonsense: 1\n"):
        if content is not None:
            (folder / "r.yaml").write_text(content)
        assert exit_code(module, ["r.yaml", *arguments]) == 2
        assert "r.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("module", WITH_RECIPE + BARE)
def test_an_unknown_option_is_2(folder, module):
    assert exit_code(module, ["--no-such-option"]) == 2
