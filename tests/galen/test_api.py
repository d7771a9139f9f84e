import concurrent.futures
import inspect
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy
import pytest

from galen import api, api_call, api_results, launch, log, yaml_text
from galen.commands import VERBS
from galen.errors import DataError, UsageError
from galen.stop_signals import StopSignals
from tests.conftest import ROOT
from tests.data_prep.material import many_records, write_medline
from tests.evaluation.conftest import data  # noqa: F401 (a fixture)

PAGE = ROOT / "docs" / "python_api.md"


@pytest.mark.slow
def test_the_examples_of_the_page(tmp_path, data, untied_llama):  # noqa: F811
    shutil.copytree(untied_llama, tmp_path / "models" / "base")
    shutil.move(data / "questions", tmp_path / "questions")
    write_medline(tmp_path / "raw" / "a.xml.gz", many_records(1, 120))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    code = textwrap.indent("\n".join(blocks), "    ")
    script = tmp_path / "script.py"
    script.write_text(f'if __name__ == "__main__":\n{code}')
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "None" not in done.stdout
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "runs" / "pretrain" / "manifest.json").is_file()


def test_every_command_has_a_function_and_a_line_of_the_page():
    rows = re.findall(r"^\| `(\w+)` \| `galen ([\w-]+)`", PAGE.read_text("utf-8"), re.MULTILINE)
    functions = [
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and name[0] != "_"
    ]
    assert [function for function, _ in rows] == functions
    assert {verb for _, verb in rows} == VERBS.keys() - {"examples", "check-node", "should-restart"}


def test_mistakes_are_typed_errors():
    with pytest.raises(UsageError, match=r"cannot read the recipe nowhere\.yaml"):
        api.curate("nowhere.yaml")
    with pytest.raises(
        UsageError, match=r"^unknown argument 'append_eos'; did you mean 'append_eod'"
    ) as error:
        api.preprocess("a.jsonl", "out", "tokenizer", append_eos=True)
    assert error.value.__suppress_context__
    with pytest.raises(UsageError, match="argument dtype: invalid choice: 'fp23'") as error:
        api.import_hf("a", "out", dtype="fp23")
    assert error.value.__suppress_context__
    with pytest.raises(DataError, match="nowhere"):
        api.import_hf("nowhere", "out")


def test_options_become_those_of_the_command_line():
    options = {"json_keys": ["text", "title"], "append_eod": True, "workers": 2, "other": None}
    expected = ["--json-keys", "text", "title", "--append-eod", "--workers=2"]
    assert api_call.flags(options) == expected
    assert api_call.assignments({"a.b": [1, "x"], "c": None}) == ['a.b=[1, "x"]', "c=null"]


@pytest.mark.parametrize("text", ["c 😀 'x'=\"1\" #y: z\\", "é\x7f\x85\u2028", "no", "1e-3", "-1"])
def test_a_text_arrives_as_it_is(text):
    (word,) = api_call.assignments({"a": [Path(text), numpy.float64(0.5)]})
    assert yaml_text.value(word.removeprefix("a="), "") == [text, 0.5]


@pytest.mark.parametrize("overrides", [{"steps": {"abstract"}}, ["output=x"], "output=x"])
def test_overrides_that_no_recipe_has_are_refused(overrides):
    with pytest.raises(UsageError, match="override"):
        api.curate("examples/corpora/pubmed_sample.yaml", overrides)


def test_messages_name_the_verb_and_values_may_look_like_options():
    with pytest.raises(UsageError, match="`galen preprocess --help` lists the options"):
        api.preprocess("a.jsonl", "-out", "tokenizer", workers="x")
    with pytest.raises(DataError, match="-a"):
        api.import_hf("-a", "out")


def test_what_the_system_refuses_is_a_typed_error(monkeypatch):
    def refused(argv):
        raise PermissionError(13, "Permission denied", "out")

    monkeypatch.setattr("checkpoints_convert.hf_to_megatron.main", refused)
    with pytest.raises(DataError, match="out: Permission denied"):
        api.import_hf("a", "out")


def test_a_command_gives_the_signals_back(monkeypatch):
    def listens(argv):
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    monkeypatch.setattr("checkpoints_convert.hf_to_megatron.main", listens)
    before = signal.getsignal(signal.SIGINT)
    api.import_hf("a", "out")
    assert signal.getsignal(signal.SIGINT) == before


def test_a_launcher_leaves_nothing_behind():
    handlers = logging.getLogger("torch.distributed").handlers
    with log.silenced("torch.distributed"), launch._known_to_processes():
        assert "GALEN_LAUNCHER" in os.environ
        assert logging.getLogger("torch.distributed").handlers != handlers
    assert "GALEN_LAUNCHER" not in os.environ
    assert logging.getLogger("torch.distributed").handlers == handlers


def test_evaluate_takes_one_model_and_lists_of_numbers(tmp_path, monkeypatch):
    def evaluate(argv):
        assert argv == ["--model=m", "--tasks=a,b", f"--output={tmp_path}", "--fewshot-seeds=1,2"]

    monkeypatch.setattr("evaluation.run.main", evaluate)
    (tmp_path / "results.json").write_text(
        json.dumps({"model": {}, "tasks": {"a": {"metrics": {"accuracy": {"value": 0.5}}}}})
    )
    for tasks in (["a", "b"], "a,b"):
        scores = api.evaluate("m", tasks, tmp_path, fewshot_seeds=[1, 2])
        assert scores.metrics == {"a": {"accuracy": 0.5}}
    with pytest.raises(UsageError, match="is not one model"):
        api.evaluate(["m", "n"], ["a"], tmp_path)
    with pytest.raises(UsageError, match="iterations: 1,2 is not one"):
        api.evaluate("m", ["a"], tmp_path, iterations=[1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.curate(None), "recipe: None is neither a text, a path nor a number"),
        (lambda: api.finetune({"model": 1}), "recipe: "),
        (lambda: api.curate("r.yaml", {1: 2}), "the key 1 is not a text"),
        (lambda: api.report(5, "r.html"), "results: 5 is not a list of paths or texts"),
        (lambda: api.quantize("m", 5, "q", "o"), "methods: 5 is not a list of paths or texts"),
        (lambda: api.import_hf("m", {"a"}), "output: {'a'} is neither a text"),
        (lambda: api.preprocess(["a", None], "o", "t"), "input: None is neither"),
        (lambda: api.inspect_checkpoint(b"m"), "path: b'm' is neither"),
        (lambda: api.run_state(True), "run: True is neither"),
        (lambda: api.import_hf("m", "o", workers={"a": 1}), "workers: {'a': 1} is neither"),
    ],
)
def test_arguments_of_a_wrong_type(call, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("code", "error"), [(1, DataError), (2, UsageError), (130, KeyboardInterrupt)]
)
@pytest.mark.parametrize("leave", [sys.exit, lambda code: code])
def test_a_command_that_ends_with_a_code_raises(monkeypatch, code, error, leave):
    monkeypatch.setattr("checkpoints_convert.hf_to_megatron.main", lambda argv: leave(code))
    with pytest.raises(error):
        api.import_hf("a", "out")
    assert "GALEN_API_FUNCTION" not in os.environ


def test_numbers_of_a_training_run(tmp_path):
    records = [
        {"kind": "train", "loss": 3.0},
        {"kind": "validation", "loss": 2.5},
        {"kind": "train", "loss": 2.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    counts = {"steps": 2, "tokens": 10}
    run = api_results.TrainingRun(tmp_path, {"counts": counts})
    assert (run.steps, run.tokens, run.loss, run.validation_loss) == (2, 10, 2.0, 2.5)
    counts = {"iteration": 2, "consumed_tokens": 10}
    run = api_results.TrainingRun(tmp_path, {"counts": counts})
    assert (run.steps, run.tokens) == (2, 10)


def test_a_stop_signal_is_recorded_in_the_main_thread_only():
    before = signal.getsignal(signal.SIGTERM)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(StopSignals().listen).result().received is None
    assert signal.getsignal(signal.SIGTERM) == before
