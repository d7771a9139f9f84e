"""The command as a user starts it, on a tiny random Llama."""

import hashlib
import html
import json
import logging
import math
import re
import shutil
import subprocess

import pytest

from evaluation import report, run
from evaluation.reporting import results_table
from evaluation.scoring.recipe import Recipe, check_recipe
from evaluation.tasks.task import load as load_task
from galen import manifest, recipe
from galen.errors import DataError, UsageError
from tests.conftest import ROOT, command

TASKS = "mesh_topics,pubmed_perplexity"


@pytest.fixture
def arguments(tiny_llama, data, tmp_path):
    return [
        "--model",
        str(tiny_llama),
        "--tasks",
        TASKS,
        "--data",
        str(data),
        "--output",
        str(tmp_path / "scores"),
        "--device",
        "cpu",
    ]


def items_of(folder, task):
    return [
        json.loads(line) for line in (folder / "samples" / f"{task}.jsonl").read_text().splitlines()
    ]


def test_results_items_and_manifest_have_the_agreed_form(arguments, tmp_path, tiny_llama, capsys):
    assert run.main([*arguments, "--name", "tiny"]) == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["model"] == {"name": "tiny", "path": str(tiny_llama), "adapter": None}
    assert results["protocol"] == "lm_eval" and set(results) == {
        "model",
        "protocol",
        "settings",
        "tasks",
        "device",
        "versions",
        "created",
    }
    choice, perplexity = results["tasks"]["mesh_topics"], results["tasks"]["pubmed_perplexity"]
    assert (choice["kind"], choice["samples"], choice["chance"]) == ("multiple_choice", 9, 0.25)
    assert (perplexity["kind"], perplexity["samples"]) == ("perplexity", 7)
    for estimate in (choice["metrics"]["accuracy"], perplexity["metrics"]["perplexity"]):
        assert estimate["low"] <= estimate["value"] <= estimate["high"]

    samples = items_of(tmp_path / "scores", "mesh_topics")
    assert {item["id"] for item in samples} == {f"q{number}" for number in range(9)}
    assert all(
        item["correct"]
        == (item["answer"] == item["prediction"] == max(item["logprobs"], key=item["logprobs"].get))
        for item in samples
    )
    assert choice["metrics"]["accuracy"]["value"] == pytest.approx(
        sum(item["correct"] for item in samples) / 9
    )
    samples = items_of(tmp_path / "scores", "pubmed_perplexity")
    assert all(set(item) == {"id", "nll", "tokens", "bytes"} for item in samples)
    mean = sum(item["nll"] for item in samples) / sum(item["tokens"] for item in samples)
    assert perplexity["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(mean))

    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_text())
    assert manifest["stage"] == "evaluate" and manifest["counts"]["samples"] == {
        "mesh_topics": 9,
        "pubmed_perplexity": 7,
    }
    printed = capsys.readouterr().out
    assert printed.startswith("tiny\n") and "mesh_topics" in printed


def test_a_killed_run_resumes_and_gives_the_same_bits(
    arguments, tmp_path, tiny_llama, caplog, capsys
):
    small = [*arguments, "--max-batch-tokens", "300"]
    run.main(small)
    # the table is headed by the model, where it has no other name
    assert capsys.readouterr().out.startswith(f"{tiny_llama.name}\n")
    scores, whole = tmp_path / "scores", tmp_path / "whole"
    shutil.copytree(scores, whole)
    # as a kill leaves it: no results, the first task cut in a line, the second not begun
    for name in ("results.json", "manifest.json", "samples/pubmed_perplexity.jsonl"):
        (scores / name).unlink()
    log = scores / "samples" / "mesh_topics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    run.main(small)
    for task in TASKS.split(","):
        assert (scores / "samples" / f"{task}.jsonl").read_bytes() == (
            whole / "samples" / f"{task}.jsonl"
        ).read_bytes()
    first, second = (
        json.loads((folder / "results.json").read_text())["tasks"] for folder in (whole, scores)
    )
    assert first == second
    times = {path: path.stat().st_mtime_ns for path in scores.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, "evaluation"):
        assert run.main(small) == 0
    assert "already complete" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_another_configuration_into_the_same_folder_is_an_error(arguments, data, tmp_path):
    run.main([*arguments, "--limit", "1"])
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert [summary["samples"] for summary in results["tasks"].values()] == [1, 1]
    with pytest.raises(UsageError, match=r"belongs to another run .*limit: 1 → 2"):
        run.main([*arguments, "--limit", "2"])
    questions = data / "questions" / "test.jsonl"
    questions.write_bytes(questions.read_bytes() + b"\n")
    with pytest.raises(UsageError, match=r"tasks\.mesh_topics\.files"):
        run.main([*arguments, "--limit", "1"])


def test_a_finished_run_is_renamed_without_scoring_again(arguments, tmp_path, monkeypatch):
    run.main([*arguments, "--name", "first"])
    scores = tmp_path / "scores"
    before = json.loads((scores / "results.json").read_text())
    samples = {path: path.stat().st_mtime_ns for path in scores.rglob("*.jsonl")}
    monkeypatch.setattr("evaluation.scoring.evaluator._backend", None)  # no model is loaded
    run.main([*arguments, "--name", "second"])
    after = json.loads((scores / "results.json").read_text())
    assert after["model"].pop("name") == "second" and before["model"].pop("name") == "first"
    assert after == before and samples == {path: path.stat().st_mtime_ns for path in samples}
    record = manifest.read(scores)
    assert record["config"]["model"]["name"] == "second"
    assert recipe.load(Recipe, scores / "recipe.yaml").name == "second"
    [written] = [output for output in record["outputs"] if output["path"] == "results.json"]
    assert written["sha256"] == manifest.sha256(scores / "results.json")
    assert json.loads((scores / "configuration.json").read_text())["model"]["name"] == "second"


def test_limit_takes_a_sample_by_hash(arguments, data, tmp_path):
    """Not the first ones, and the same ones whatever the order of the file."""
    expected = sorted(
        sorted((f"q{n}" for n in range(9)), key=lambda id_: hashlib.sha256(id_.encode()).digest())[
            :3
        ]
    )
    assert expected != ["q0", "q1", "q2"]
    file = data / "questions" / "test.jsonl"
    for name in ("scores", "turned"):
        run.main(
            [*arguments, "--output", str(tmp_path / name), "--limit", "3", "--tasks", "mesh_topics"]
        )
        assert sorted(item["id"] for item in items_of(tmp_path / name, "mesh_topics")) == expected
        file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, (2, 4)),
        # in a batch script, where no other task was started
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),
        ({"SLURM_NTASKS": "4"}, (0, 1)),  # in the shell of salloc
    ],
)
def test_which_part_of_the_work_is_this_process(monkeypatch, environment, part):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run._part(1) == part


def test_a_folder_of_something_else_is_not_touched(arguments, tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not made by this command"):
        run.main(arguments)


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("--model", "missing", UsageError, "there is no model folder missing"),
        ("--adapter", "missing", UsageError, "there is no adapter folder missing"),
        (
            "--tasks",
            "mesh_topic",
            UsageError,
            r"unknown task 'mesh_topic'; did you mean 'mesh_topics'\?",
        ),
        ("--tasks", "mesh_topics,mesh_topics", UsageError, "twice"),
        (
            "--protocol",
            "lm_evl",
            UsageError,
            r"unknown protocol 'lm_evl'; did you mean 'lm_eval'\?",
        ),
        ("--limit", "0", UsageError, "--limit must be at least 1"),
        ("--num-fewshot", "-1", UsageError, "--num-fewshot must be at least 0"),
        ("--num-samples", "0", UsageError, "--num-samples must be at least 1"),
        ("--fewshot-seeds", "1,x", UsageError, "--fewshot-seeds"),
        ("--fewshot-seeds", "1,1", UsageError, "--fewshot-seeds"),
        ("--data", "nowhere", DataError, "there is no file nowhere/questions/test.jsonl"),
    ],
)
def test_mistakes_of_the_command_line(arguments, tmp_path, option, value, error, message):
    with pytest.raises(error, match=message):
        run.main([*arguments, option, value])
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b'{"id": "x", "question": "?", "options": {"A": "a", "B": "b"}}',
            r"test\.jsonl, line 10: key 'answer' must be a text, not missing",
        ),
        (
            b'{"id": "x", "question": "?", "options": {"A": "a", "B": "b"}, "answer": "C"}',
            "line 10: key 'answer' is 'C', which is none of",
        ),
        (
            b'{"id": "x", "question": "?", "options": {"A": "a", "B": 3}, "answer": "A"}',
            "line 10, in 'options': key 'B' must be a text, not 3",
        ),
        (
            b'{"id": "x", "question": "?", "options": ["a"], "answer": "A"}',
            "line 10: key 'options' must be an object",
        ),
        (
            b'{"id": "q3", "question": "?", "options": {"A": "a", "B": "b"}, "answer": "A"}',
            "line 10: key 'id': 'q3' comes a second time",
        ),
        (b'{"id": "x", ', "line 10: not JSON"),
        (b"[1]", "line 10: a record must be a JSON object"),
    ],
)
def test_malformed_questions(arguments, data, line, message):
    with (data / "questions" / "test.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DataError, match=message):
        run.main(arguments)


def test_empty_files(arguments, data):
    (data / "questions" / "test.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no questions"):
        run.main(arguments)
    (data / "corpus" / "test" / "00000.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no \.jsonl or \.jsonl\.gz file"):
        run.main([*arguments, "--tasks", "pubmed_perplexity"])


def test_a_broken_gzip_file(arguments, data):
    (data / "corpus" / "test" / "00001.jsonl.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    with pytest.raises(DataError, match=r"00001\.jsonl\.gz, after line 0: cannot be read"):
        run.main(arguments)


def test_a_model_of_nan_is_refused(arguments, tiny_llama, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="a log-likelihood that is not finite"):
        run.main([*arguments, "--model", str(broken)])


def test_a_mistake_is_one_line_on_the_command_line(arguments):
    done = subprocess.run(
        command("evaluation/run.py", *arguments, "--tasks", "mesh"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: unknown task 'mesh'; known: afrimedqa, ")
        and done.stderr.count("\n") == 1
    )


def test_a_recipe_gives_the_scores_of_its_options_and_is_saved(
    arguments, tiny_llama, data, tmp_path
):
    run.main([*arguments, "--limit", "3", "--name", "tiny"])
    recipe_path = tmp_path / "recipe.yaml"
    recipe_path.write_text(
        f"model: {tiny_llama}\ntasks: [mesh_topics, pubmed_perplexity]\ndata: {data}\n"
        f"output: {tmp_path / 'of_recipe'}\ndevice: cpu\nlimit: 5\nname: tiny\n"
    )
    run.main([str(recipe_path), "limit=3"])
    saved = tmp_path / "of_recipe" / "recipe.yaml"
    run.main(["--log-level", "warning", str(saved), f"output={tmp_path / 'again'}"])
    for name in ("results.json", *(f"samples/{task}.jsonl" for task in TASKS.split(","))):
        contents = []
        for folder in ("scores", "of_recipe", "again"):
            text = (tmp_path / folder / name).read_text()
            contents.append(json.loads(text)["tasks"] if name == "results.json" else text)
        assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limt=3", "unknown key 'limt'; did you mean 'limit'"),
        ("limit=0", "override 'limit=0': limit must be at least 1"),
        ("backend=vlm", "backend: "),
        ("protocol=lm_evl", "did you mean 'lm_eval'"),
        ("fewshot_seeds=[1,1]", "fewshot_seeds=[1,1]': fewshot_seeds must name"),
        ("num_fewshot=-1", "override 'num_fewshot=-1': num_fewshot must be at least 0"),
        ("tasks=[mesh_topics,mesh_topics]", "tasks names 'mesh_topics' twice"),
        ("iterations=1", "iterations is for Megatron checkpoints"),
        ("tensor_parallel=2", "tensor_parallel=2': tensor_parallel goes with backend vllm"),
        ("model=missing", "there is no model folder missing"),
    ],
)
def test_mistakes_of_a_recipe_are_found_before_any_work(
    override, message, tiny_llama, data, tmp_path
):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {tiny_llama}\ntasks: mesh_topics\ndata: {data}\noutput: {tmp_path / 'scores'}\n"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        run.main([str(path), override])
    assert not (tmp_path / "scores").exists()


def test_a_mistake_in_the_file_of_a_recipe_names_its_line(tiny_llama, data, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {tiny_llama}\ntasks: mesh_topics\nlimit: 0\ndata: {data}\noutput: scores\n"
    )
    with pytest.raises(UsageError, match=r"recipe\.yaml, line 3: limit must be at least 1"):
        run.main([str(path)])


def test_the_examples_are_recipes():
    for path in (ROOT / "examples" / "evaluate").glob("*.yaml"):
        options = recipe.load(Recipe, path)
        check_recipe(options)
        for name in options.tasks:
            load_task(name)


def test_evaluate_returns_the_results(tiny_llama, data, tmp_path):
    options = Recipe(
        model=[tiny_llama],
        tasks=["mesh_topics"],
        data=data,
        output=tmp_path / "scores",
        device="cpu",
        limit=2,
    )
    [results] = run.evaluate(options)
    assert results == json.loads((tmp_path / "scores" / "results.json").read_text())


def test_truncated_prompts_are_counted(tiny_llama, data, tmp_path, capsys):
    """In results, report and on resume: a prompt without its beginning is another question."""
    path = data / "questions" / "test.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:4]]
    for record in records[:2]:
        record["context"] *= 40
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    for protocol in ("lm_eval", "meditron_zero_shot", "chat"):
        output = tmp_path / protocol
        options = Recipe(
            model=[tiny_llama],
            tasks=["mesh_topics"],
            protocol=protocol,
            data=data,
            output=output,
            device="cpu",
            max_new_tokens=2 if protocol == "chat" else None,
        )
        [results] = run.evaluate(options)
        assert results["tasks"]["mesh_topics"]["truncated_prompts"] == 2
        marked = [
            item["id"] for item in items_of(output, "mesh_topics") if "truncated_prompt" in item
        ]
        assert sorted(marked) == ["q0", "q1"]
    (output / "results.json").unlink()
    [resumed] = run.evaluate(options)
    assert resumed["tasks"] == results["tasks"]
    note = "2 of 4 prompts were truncated on the left to the model's context"
    assert note in results_table.table(results, "heading")
    report.main([str(output), "--output", str(tmp_path / "report.html")])
    assert note in capsys.readouterr().out
    assert note in html.unescape((tmp_path / "report.html").read_text("utf-8"))
