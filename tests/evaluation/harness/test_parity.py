"""Tasks of lm-evaluation-harness through Galen and through the harness' own `hf` model.

The same prompts, log-likelihoods, texts and metrics, document by document, in all types of output.
"""

import json
import math
from pathlib import Path

import lm_eval
import pytest

from evaluation import run
from evaluation.harness import task_index

pytestmark = pytest.mark.slow

TASKS = {
    "multimedqa": "multiple_choice",  # a group: pubmedqa, medmcqa, medqa_4options, six of MMLU
    "arc_easy": "multiple_choice",
    "headqa_en": "multiple_choice",
    "winogrande": "multiple_choice",  # the options are in the prompts
    "cola": "multiple_choice",  # its metric is no mean
    "gsm8k": "generate_until",  # two filters
    "nq_open": "generate_until",
    "lambada_openai": "loglikelihood",
    "wikitext": "loglikelihood_rolling",
}
LIMIT = 3


@pytest.fixture(scope="module")
def reference(long_llama, harness_data):
    """The harness' results for all tasks, by its own model class; data sets by its own loader."""
    import datasets
    from lm_eval.models.huggingface import HFLM

    original = datasets.load_dataset

    def local(path, name=None, **_):
        files = sorted((harness_data / path / (name or "")).glob("*.jsonl"))
        loaded = original("json", data_files={file.stem: str(file) for file in files})
        return loaded

    model = HFLM(pretrained=str(long_llama), device="cpu", dtype="float32", batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", local)
        patch.setenv("DISABLE_MULTIPROC", "1")
        return lm_eval.simple_evaluate(
            model=model,
            tasks=list(TASKS),
            task_manager=task_index.manager(None),  # an index, which takes seconds
            limit=LIMIT,
            bootstrap_iters=1000,
        )


@pytest.fixture(scope="module")
def output(long_llama, harness_data, tmp_path_factory):
    """The folder of Galen's run of all tasks."""
    folder = tmp_path_factory.mktemp("galen") / "scores"
    names = ",".join(f"lm_eval:{name}" for name in TASKS)
    arguments = ["--model", long_llama, "--tasks", names, "--data", harness_data]
    arguments += ["--output", folder, "--limit", LIMIT, "--device", "cpu"]
    run.main([str(argument) for argument in arguments])
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def leaves(reference, name):
    return reference["group_subtasks"].get(name) or [name]


def harness_files(output, name):
    """Galen's files in the harness' layout: results, and samples by task."""
    folder = output / "lm_eval" / name
    [results] = folder.rglob("results_*.json")
    samples = {}
    for path in results.parent.glob("samples_*.jsonl"):
        samples[path.name.removeprefix("samples_").rpartition("_")[0]] = lines(path)
    return json.loads(results.read_text()), samples


def plain(value):
    """A value as the harness writes it."""
    return json.loads(json.dumps(value, default=lambda item: getattr(item, "tolist", str)()))


@pytest.mark.parametrize("name", TASKS)
def test_same_prompts_responses_and_metrics(reference, output, name):
    results, samples = harness_files(output, name)
    assert set(samples) == set(leaves(reference, name))
    for leaf, ours in samples.items():
        theirs = reference["samples"][leaf]
        assert len(ours) == len(theirs) == LIMIT * len({item["filter"] for item in theirs})
        assert reference["configs"][leaf]["output_type"] == TASKS[name]
        for sample, expected in zip(ours, theirs, strict=True):
            check_sample(sample, expected)
    for part in [name, *leaves(reference, name)]:
        for key, value in reference["results"][part].items():
            assert results["results"][part][key] == approx(value), (part, key)


def check_sample(sample, expected):
    for key in ("doc_id", "filter", "doc_hash", "prompt_hash", "target_hash", "metrics"):
        assert sample[key] == expected[key], key
    arguments = [list(item.values()) for item in sample["arguments"].values()]
    assert arguments == plain(expected["arguments"])
    responses = [[numbers(item) for item in of_instance] for of_instance in sample["resps"]]
    assert responses == [[approx(item) for item in resp] for resp in expected["resps"]]
    for metric in expected["metrics"]:
        assert flat(sample[metric]) == approx(flat(plain(expected[metric])))


def numbers(response):
    """A response of the harness' file, in which log-likelihoods are texts."""
    if isinstance(response, list):
        return (float(response[0]), response[1] == "True")
    try:
        return float(response)
    except ValueError:
        return response


def approx(value):
    if isinstance(value, tuple | list):
        return type(value)(approx(item) for item in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return pytest.approx(value, abs=1e-4, rel=1e-4) if is_number else value


def flat(value):
    if isinstance(value, list):
        return [item for part in value for item in flat(part)]
    return [value]


@pytest.mark.parametrize("name", TASKS)
def test_metrics_in_results_json_are_the_harness_own(reference, output, name):
    entry = json.loads((output / "results.json").read_text())["tasks"][f"lm_eval:{name}"]
    expected = reference["results"][name]
    for key, value in expected.items():
        metric, _, filter_name = key.partition(",")
        if filter_name and not metric.endswith("_stderr"):
            ours = metric if filter_name == "none" else key
            assert entry["metrics"][ours]["value"] == pytest.approx(value, abs=1e-6, rel=1e-4)
            assert entry["metrics"][ours]["low"] <= value <= entry["metrics"][ours]["high"] + 1e-6
    assert entry["kind"] == "lm_eval"
    assert entry["samples"] == LIMIT * len(leaves(reference, name))
    assert entry["primary_metric"] in entry["metrics"]
    samples = lines(output / "samples" / f"lm_eval.{name}.jsonl")
    assert all(math.isfinite(sample["score"]) for sample in samples)


def test_groups_have_their_tasks(reference, output):
    entry = json.loads((output / "results.json").read_text())["tasks"]["lm_eval:multimedqa"]
    assert set(entry["tasks"]) == set(entry["by_subject"]) == set(leaves(reference, "multimedqa"))
    for leaf, of_leaf in entry["tasks"].items():
        expected = reference["results"][leaf]["acc,none"]
        assert of_leaf["metrics"]["acc"]["value"] == pytest.approx(expected)
        assert entry["by_subject"][leaf]["value"] == pytest.approx(expected)


def test_random_few_shot_examples_are_the_same(long_llama, harness_data, tmp_path, reference):
    assert reference["n-shot"]["gsm8k"] == 5  # by the task
    arguments = ["--model", str(long_llama), "--tasks", "lm_eval:arc_easy,lm_eval:mmlu_anatomy"]
    arguments += ["--data", str(harness_data), "--output", str(tmp_path / "scores")]
    run.main([*arguments, "--limit", "3", "--num-fewshot", "2", "--device", "cpu"])
    prompts = [item["prompt"] for item in lines(tmp_path / "scores/prompts/lm_eval.arc_easy.jsonl")]
    assert [prompt.count("Question:") for prompt in prompts] == [3, 3, 3]
    examples = {prompt.rsplit("\n\n", 1)[0] for prompt in prompts}
    assert len(examples) > 1, "drawn for each document"
    config = json.loads((Path(tmp_path) / "scores/results.json").read_text())["tasks"]
    assert config["lm_eval:arc_easy"]["settings"]["num_fewshot"] == {"arc_easy": 2}
