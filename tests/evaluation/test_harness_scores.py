"""Scores under `lm_eval` protocols against lm-evaluation-harness itself, item by item.

With its own tasks, model class and records; and a task of one's own against the same task there.
"""

import importlib
import json
import shutil
import string

import pytest

from evaluation import run

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is in the extra `test`")
harness_tasks = importlib.import_module("tests.evaluation.harness_tasks")

# a task with its own columns and wording, and the same in a task file of Galen
OWN = """
task: galen_own
description: "Board examination.\\n\\n"
dataset_path: json
dataset_kwargs: {{data_files: {{train: {train}, test: {file}}}}}
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
num_fewshot: 1
output_type: multiple_choice
doc_to_text: "On {{{{subject}}}}: {{{{question}}}}\\n\
{{% for choice in choices %}}- {{{{choice}}}}\\n{{% endfor %}}Reply:"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
"""
OURS = """
kind: multiple_choice
file: test.jsonl
fields: {question: question, options: choices, answer: answer, answer_format: index}
fewshot_source: train.jsonl
fewshot_sampler: first_n
num_fewshot: 1
prompt:
  description: "Board examination.\\n\\n"
  doc_to_text: "On {{doc.subject}}: {{question}}\\n\
{% for choice in choices %}- {{choice}}\\n{% endfor %}Reply:"
  doc_to_choice: "{{choices}}"
"""


CASES = [
    # the harness' task, Galen's reader, protocol, name of Galen's file, records
    ("medqa_4options", "medqa", "lm_eval", "test.jsonl", harness_tasks.medqa),
    ("medmcqa", "medmcqa", "lm_eval", "dev.json", harness_tasks.medmcqa),
    ("pubmedqa", "pubmedqa", "lm_eval", "ori.jsonl", harness_tasks.pubmedqa),
    ("mmlu_anatomy", "mmlu", "lm_eval", "a.jsonl", harness_tasks.mmlu),
    ("mmlu_anatomy_continuation", "mmlu", "lm_eval_continuation", "a.jsonl", harness_tasks.mmlu),
    ("headqa_es", "headqa", "lm_eval", "es.jsonl", harness_tasks.headqa),
    ("truthfulqa_mc1", "truthfulqa", "lm_eval", "v.jsonl", harness_tasks.truthfulqa),
]


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory):
    """A model whose context has room for TruthfulQA's prompt."""
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


@pytest.fixture(scope="module")
def hf(model):
    """The harness' own model class."""
    environment = pytest.MonkeyPatch()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        environment.setenv(name, "1")
    from lm_eval.models.huggingface import HFLM

    yield HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=8)
    environment.undo()


def evaluated(hf, name, manager):
    """Return the harness' samples and results of a task."""
    found = lm_eval.simple_evaluate(model=hf, tasks=[name], task_manager=manager, bootstrap_iters=0)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    return samples, found["results"][name]


def scored(work, model, task_file, protocol):
    """Return Galen's samples in the order of the file, and the task's entry of the results."""
    (work / "ours.yaml").write_text(task_file)
    arguments = ["--model", str(model), "--tasks", str(work / "ours.yaml"), "--data"]
    arguments += [str(work), "--output", str(work / "scores"), "--protocol", protocol]
    run.main([*arguments, "--device", "cpu"])
    lines = (work / "scores/samples/ours.jsonl").read_text().splitlines()
    samples = {sample["id"]: sample for sample in map(json.loads, lines)}
    prompts = (work / "scores/prompts/ours.jsonl").read_text().splitlines()
    entry = json.loads((work / "scores/results.json").read_text())["tasks"]["ours"]
    return [samples[json.loads(line)["id"]] for line in prompts], entry


def compare(theirs, ours):
    """Compare log-likelihoods and correctness of each sample, by the text of the option."""
    for reference, sample in zip(theirs, ours, strict=True):
        logprobs = [float(response[0][0]) for response in reference["resps"]]
        assert sorted(sample["logprobs"].values()) == pytest.approx(sorted(logprobs), abs=1e-4)
        assert float(sample["correct"]) == reference["acc"]
        if "acc_norm" in reference:
            assert float(sample["correct_acc_norm"]) == reference["acc_norm"]
    assert len({sample["prediction"] for sample in ours}) > 1, "always the same answer"


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_same_log_likelihoods_and_metrics_item_by_item(hf, model, tmp_path, case):
    name, reader, protocol, file, build = case
    pairs = [build(number) for number in range(20)]
    rows = [theirs for _, theirs in pairs]
    with harness_tasks.records({"train": rows, "dev": rows, "validation": rows, "test": rows}):
        theirs, results = evaluated(hf, name, harness_tasks.manager(name))
    harness_tasks.write(tmp_path / file, [ours for ours, _ in pairs])
    task_file = f"kind: multiple_choice\nfile: {file}\nreader: {reader}\n"
    ours, entry = scored(tmp_path, model, task_file, protocol)
    compare(theirs, ours)
    for metric, key in (("accuracy", "acc,none"), ("acc_norm", "acc_norm,none")):
        if key in results:
            assert entry["metrics"][metric]["value"] == pytest.approx(results[key])


def test_a_task_of_ones_own_scores_as_in_the_harness(hf, model, tmp_path, monkeypatch):
    rows = [harness_tasks.mmlu(number)[0] for number in range(24)]
    harness_tasks.write(tmp_path / "test.jsonl", rows[:20])
    harness_tasks.write(tmp_path / "train.jsonl", rows[20:])
    (tmp_path / "harness.yaml").write_text(
        OWN.format(file=tmp_path / "test.jsonl", train=tmp_path / "train.jsonl")
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    manager = lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs, results = evaluated(hf, "galen_own", manager)
    ours, entry = scored(tmp_path, model, OURS, "lm_eval")
    compare(theirs, ours)
    for reference, sample in zip(theirs, ours, strict=True):
        logprobs = [float(response[0][0]) for response in reference["resps"]]
        assert list(sample["logprobs"].values()) == pytest.approx(logprobs, abs=1e-4)
        best = logprobs.index(max(logprobs))
        assert string.ascii_uppercase.index(sample["prediction"]) == best
    assert entry["metrics"]["accuracy"]["value"] == pytest.approx(results["acc,none"])
