"""Generated answers against references as a user scores them, on a tiny random Llama."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation import report, run
from evaluation.scoring.recipe import Recipe
from galen.errors import DataError, UsageError

HERE = Path(__file__).parent
TASK = """
kind: generation
file: sums.jsonl
fields: {id: n, question: q, answer: a, subject: s, split: split}
test_split: test
fewshot_split: train
num_fewshot: 2
metric: METRIC
max_new_tokens: 8
"""


@pytest.fixture
def evaluate(make_llama, tmp_path):
    """Evaluate a task file; return the results, the samples and the prompts."""
    model = make_llama(num_hidden_layers=2, max_position_embeddings=4096, initializer_range=0.15)
    records = [
        {
            "n": number,
            "q": f"What is {number} + 1?",
            "a": [str(number + 1), f"{number}.5"],
            "s": "odd" if number % 2 else "even",
            "split": "train" if number < 4 else "test",
        }
        for number in range(12)
    ]
    text = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "sums.jsonl").write_text(text + "\n")

    def evaluate(yaml, **options):
        path = tmp_path / "sums.yaml"
        path.write_text(yaml)
        values = {
            "model": [model],
            "tasks": [str(path)],
            "data": tmp_path,
            "output": tmp_path / "scores",
            "device": "cpu",
        } | options
        [results] = run.evaluate(Recipe(**values))
        [name] = results["tasks"]
        files = [values["output"] / part / f"{name}.jsonl" for part in ("samples", "prompts")]
        samples, prompts = (
            [json.loads(line) for line in file.read_text().splitlines()] for file in files
        )
        return results["tasks"][name], samples, prompts

    return evaluate


@pytest.mark.parametrize("metric", ["exact_match", "numeric", "f1"])
def test_each_metric_from_end_to_end(evaluate, tmp_path, metric):
    entry, samples, prompts = evaluate(TASK.replace("METRIC", metric))
    assert entry["kind"] == "generation" and entry["primary_metric"] == metric
    mean = sum(sample["correct"] for sample in samples) / 8
    assert entry["metrics"][metric]["value"] == pytest.approx(mean)
    assert set(entry["by_subject"]) == {"even", "odd"}
    assert entry["metrics"]["tokens_per_answer"]["value"] <= 8
    assert entry["settings"]["metric"] == metric and entry["settings"]["num_fewshot"] == 2
    shown, own = prompts[0]["prompt"].rsplit("\n\n", 1)
    assert own == "What is 4 + 1?\nAnswer:"
    assert shown.count("\n\n") == 1 and shown.count("Answer: ") == 2
    assert all("\n\n" not in sample["outputs"][0] for sample in samples)
    report.main([str(tmp_path / "scores"), "--output", str(tmp_path / "report.html")])
    assert "sums" in (tmp_path / "report.html").read_text()


def test_another_tolerance_does_not_resume_into_the_same_folder(evaluate):
    yaml = TASK.replace("METRIC", "numeric")
    first, *_ = evaluate(yaml)
    assert evaluate(yaml)[0] == first
    with pytest.raises(UsageError, match=r"tolerance|another"):
        evaluate(yaml + "tolerance: {absolute: 1}\n")


def test_options_replace_the_number_of_examples(evaluate, tmp_path):
    yaml = TASK.replace("METRIC", "f1")
    entry, samples, prompts = evaluate(yaml, num_fewshot=0, limit=3, max_new_tokens=2)
    assert max(sample["num_tokens"][0] for sample in samples) <= 2
    assert entry["samples"] == 3 and entry["settings"]["num_fewshot"] == 0
    assert prompts[0]["prompt"].startswith("What is")
    with pytest.raises(DataError, match=r"9 few-shot examples are needed, .* holds 4"):
        evaluate(yaml, num_fewshot=9, output=tmp_path / "nine")


def test_chat_protocols_have_turns_and_their_own_sampling(evaluate, tmp_path):
    chat = HERE / "chat_models" / "templates" / "chatml.jinja"
    yaml = TASK.replace("METRIC", "numeric") + "prompt: {description: Add.}\n"
    entry, samples, prompts = evaluate(
        yaml,
        protocol="chat",
        chat_template=str(chat),
        max_new_tokens=6,
        num_samples=3,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
    )
    assert prompts[0]["prompt"].count("<|im_start|>assistant") == 3
    assert "<|im_start|>system\nAdd." in prompts[0]["prompt"]
    assert all(len(sample["outputs"]) == 3 for sample in samples)
    assert "pass@2" in entry["metrics"]


def test_medcalc_bench(evaluate, tmp_path):
    (tmp_path / "medcalc_bench").mkdir()
    records = HERE / "tasks" / "records" / "medcalc_bench.csv"
    shutil.copy(records, tmp_path / "medcalc_bench" / "test_data.csv")
    yaml = (HERE.parents[1] / "evaluation" / "tasks" / "medcalc_bench.yaml").read_text()
    entry, samples, prompts = evaluate(yaml.replace("1024", "4"))
    answers = {sample["id"]: sample["answer"] for sample in samples}
    assert answers["3"] == "12/02/2000"
    assert answers["2"] == "2" and answers["4"] == "('34 weeks', '3 days')"
    assert set(entry["by_subject"]) == {"lab test", "diagnosis", "date"}
    [text] = [item["prompt"] for item in prompts if item["id"] == "1"]
    assert text.startswith("You are a helpful assistant for calculating a score")
    assert (
        "(short_and_direct_answer_of_the_question)}.\n\nHere is the patient note:\nPatient has"
        in text
    )
    assert text.endswith("str(short_and_direct_answer_of_the_question)}:")


def test_seeds_of_examples_are_runs(evaluate, tmp_path):
    yaml = TASK.replace("METRIC", "f1").replace("num_fewshot: 2", "num_fewshot: 1")
    path = tmp_path / "sums.yaml"
    with pytest.raises(FileNotFoundError):  # the samples have the seed in their name
        evaluate(yaml, fewshot_seeds=[1, 2], limit=3)
    assert path.is_file()
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert set(results["tasks"]["sums"]["runs"]) == {"1", "2"}
    report.main([str(tmp_path / "scores"), "--output", str(tmp_path / "report.html")])


def test_the_length_of_answers_that_are_not_generated(evaluate, tmp_path, data):
    with pytest.raises(UsageError, match="--max-new-tokens is for answers that are generated"):
        evaluate("", tasks=["mesh_topics"], data=data, max_new_tokens=5)
