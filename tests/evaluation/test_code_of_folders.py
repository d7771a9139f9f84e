"""No command runs Python code of a model folder, or asks whether to, though "y" is typed."""

import ast
import json
import os
import pty
import shutil
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from checkpoints_convert import describe, hf_to_megatron, verify
from evaluation import question_sets
from evaluation import run as evaluate
from evaluation.backends import model_folder
from evaluation.metrics import text_metrics
from finetune import train
from galen import cli
from galen.errors import DataError, UsageError
from tests.conftest import ROOT

PAYLOAD = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import LlamaConfig as Config, LlamaForCausalLM as Model
from transformers import PreTrainedTokenizerFast as Words
def generate(model, *_, **__):
    pathlib.Path({marker!r}).write_text("ran")
"""
QUESTION = {"id": "1", "question": "Which?", "options": {"A": "one", "B": "two"}, "answer": "A"}


@pytest.fixture
def folders(tmp_path, tied_llama):
    """Folders with code, of a model known to transformers and of an unknown one.

    And the marker file, which must not appear.
    """
    marker = tmp_path / "ran"
    made = {}
    for kind, model_type in (("known", "llama"), ("unknown", "evil")):
        folder = made[kind] = tmp_path / kind
        shutil.copytree(tied_llama, folder)
        for name in ("evil.py", "custom_generate/generate.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(PAYLOAD.format(marker=str(marker)))
        config = json.loads((folder / "config.json").read_text())
        config["model_type"] = model_type
        config["auto_map"] = {
            "AutoConfig": "evil.Config",
            "AutoModelForCausalLM": "evil.Model",
            "AutoModel": "evil.Model",
        }
        (folder / "config.json").write_text(json.dumps(config))
        words = json.loads((folder / "tokenizer_config.json").read_text())
        words |= {"auto_map": {"AutoTokenizer": ["evil.Words", "evil.Words"]}}
        words |= {"tokenizer_class": "Words"} if kind == "unknown" else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(words))
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps(QUESTION | {"id": str(number)}) + "\n" for number in range(4))
    )
    return made, marker


def at_a_terminal(main) -> tuple[int, str]:
    """Run a main in a fork at a terminal where "y" is typed; return exit code and output."""
    child, terminal = pty.fork()
    if not child:
        code = 99
        try:
            torch.set_num_threads(1)
            sys.stdin = os.fdopen(0, closefd=False)  # pytest has put its own there
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
            cli.run(main)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.write(terminal, b"y\n" * 20)
    said = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode(errors="replace")


def commands(folder: Path, tmp_path: Path) -> dict[str, list]:
    """Return each command that opens a model folder, by its name, with its arguments."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {folder}}}\ndata: {{train: {tmp_path / 'q.jsonl'}}}\nlora: {{r: 2, alpha:"
        " 4}\noptimizer: {lr: 0.01}\ntraining: {train_iters: 1, micro_batch_size: 2}\noutput:"
        f" {tmp_path / 'tuned'}\n"
    )
    (tmp_path / "questions").mkdir(exist_ok=True)
    shutil.copy(tmp_path / "q.jsonl", tmp_path / "questions" / "test.jsonl")
    scores = [
        "--tasks",
        "mesh_topics",
        "--data",
        str(tmp_path),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "scores"),
    ]
    return {
        "evaluate": [evaluate.main, ["--model", str(folder), *scores]],
        "finetune": [train.main, [str(recipe)]],
        "import": [
            hf_to_megatron.main,
            ["--hf", str(folder), "--output", str(tmp_path / "megatron")],
        ],
        "describe": [describe.main, [str(folder)]],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "finetune", "import", "describe"])
@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_no_command_runs_it(tmp_path, folders, kind, name):
    made, marker = folders
    main, arguments = commands(made[kind], tmp_path)[name]
    code, said = at_a_terminal(lambda: main(arguments))
    assert not marker.exists(), said
    assert "[y/N]" not in said and "Traceback" not in said, said
    assert code == (0 if kind == "known" else 1), said
    if kind == "unknown":
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert (
            "auto_map"
            if name in ("evaluate", "finetune")
            else "model_type 'evil' cannot be converted"
        ) in line


def test_verify_does_not_run_it(tmp_path, folders):
    made, marker = folders
    folder = made["known"]
    code, said = at_a_terminal(
        lambda: print(
            verify.reference_logits(
                folder, verify.tokens_of(folder, verify.TEXT, 4, 1), "fp32"
            ).shape
        )
    )
    assert (code, marker.exists()) == (0, False), said
    assert "torch.Size([1, 4, 300])" in said


def test_pickled_weights_are_not_loaded(tmp_path, tied_llama):
    """A pickle of weights that transformers would read, with another safetensors file as decoy."""
    from evaluation.backends.model_loading import load_model

    folder = tmp_path / "model"
    shutil.copytree(tied_llama, folder)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    with pytest.raises(DataError, match=r"cannot be loaded: .*safetensors"):
        load_model(folder)
    with pytest.raises(DataError, match=r"cannot be loaded: .*safetensors"):
        text_metrics.BertScore(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_a_hub_are_refused(tmp_path, tied_llama, key):
    from evaluation.backends.model_loading import load_model

    folder = tmp_path / "model"
    shutil.copytree(tied_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: "somebody/kernel"}))
    with pytest.raises(DataError, match=f"{key} = 'somebody/kernel' names code of a hub"):
        load_model(folder)


def test_an_adapter_that_names_a_module_is_refused(tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"megatron_config": {"a": 1}, "megatron_core": "evil"})
    )
    with pytest.raises(DataError, match="megatron_config, which names a module to import, is"):
        model_folder.check_adapter(tmp_path)


def test_a_package_that_runs_code_of_data_sets_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__version__="3.6.0"))
    with pytest.raises(UsageError, match=r"datasets 3\.6\.0 may run code of the hub"):
        question_sets.read("medqa", "hub:somebody/set:test")


def test_every_call_says_that_no_code_is_trusted():
    """Without the argument a terminal is asked."""
    silent = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] in ("tests", ".venv", ".venv312"):
            continue
        for call in (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ):
            name = ast.unparse(call.func)
            given = {keyword.arg for keyword in call.keywords}
            loads = name.endswith(".from_pretrained") and ("Auto" in name or "auto" in name)
            loads |= name.endswith(("LLM", "MergeOptions")) or name == "pipeline"
            if loads and "trust_remote_code" not in given and not given >= {None}:
                silent.append(f"{path.relative_to(ROOT)}:{call.lineno} {name}")
    assert silent == []
