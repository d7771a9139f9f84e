"""The comparison with lm-evaluation-harness: its own prompts, and Galen's beside them."""

import importlib
import json

import pytest

from benchmarks import evaluate
from evaluation.harness import task_index
from galen.errors import UsageError

pytest.importorskip("lm_eval", reason="lm-eval is in the extra `test`")
harness_tasks = importlib.import_module("tests.evaluation.harness_tasks")


@pytest.mark.parametrize(
    ("name", "dataset", "build", "num_fewshot"),
    [
        ("mmlu_anatomy_continuation", "cais/mmlu/anatomy", harness_tasks.mmlu, 2),
        ("medqa_4options", "GBaker/MedQA-USMLE-4-options-hf", harness_tasks.medqa, 1),
        (
            "pubmedqa",
            "bigbio/pubmed_qa/pubmed_qa_labeled_fold0_source",
            harness_tasks.pubmedqa,
            0,
        ),
        ("headqa_en", "EleutherAI/headqa/en", harness_tasks.headqa, 0),
        ("truthfulqa_mc1", "truthfulqa/truthful_qa/multiple_choice", harness_tasks.truthfulqa, 0),
    ],
)
def test_prompts_are_the_harness_own_and_galen_has_the_same(
    tmp_path, monkeypatch, name, dataset, build, num_fewshot
):
    monkeypatch.setattr(task_index, "manager", lambda _: harness_tasks.manager(name))
    folder = tmp_path / dataset
    folder.mkdir(parents=True)
    rows = [build(number)[1] for number in range(12)]
    for split in ("test", "validation"):
        harness_tasks.write(folder / f"{split}.jsonl", rows[:8])
    for split in ("train", "dev"):
        harness_tasks.write(folder / f"{split}.jsonl", rows[8:])
    task = evaluate.load_task(name, tmp_path, num_fewshot, limit=6)
    prompts = evaluate.harness_prompts(task)
    assert len(prompts) == 6
    assert prompts[0].text == task.instances[0].args[0]
    assert evaluate.galen_prompts_equal(name, task, prompts, num_fewshot) == 6
    changed = [*prompts[:5], evaluate.Prompt("Another prompt", prompts[5].continuations)]
    assert evaluate.galen_prompts_equal(name, task, changed, num_fewshot) == 5


@pytest.mark.parametrize(
    ("name", "same", "batch"),
    [
        ("mmlu_anatomy", "same_predictions", "4"),
        ("mmlu_flan_cot_zeroshot_anatomy", "same_answers", "default"),
    ],
)
def test_both_sides_give_the_same(tmp_path, monkeypatch, make_llama, capsys, name, same, batch):
    monkeypatch.setattr(task_index, "manager", lambda _: harness_tasks.manager(name))
    folder = tmp_path / "cais/mmlu/anatomy"
    folder.mkdir(parents=True)
    rows = [harness_tasks.mmlu(number)[1] for number in range(6)]
    for split in ("test", "validation", "dev"):
        harness_tasks.write(folder / f"{split}.jsonl", rows)
    model = make_llama(num_hidden_layers=2, max_position_embeddings=1024)
    options = ["--model", str(model), "--task", name, "--data", str(tmp_path)]
    evaluate.main([*options, "--limit", "6", "--batch", batch, "--part", "3", "--threads", "1"])
    output = capsys.readouterr().out
    result = json.loads(output[output.index("{") :])
    assert result[same] == 6
    assert len(result["cpu_time_ratios"]) == 2
    assert min(result["cpu_time_ratios"]) > 0


def test_parts_of_another_task_are_refused(tmp_path):
    path = tmp_path / "parts.jsonl"
    path.write_text(json.dumps({"task": "medmcqa", "questions": 2}) + "\n")
    with pytest.raises(UsageError, match="parts of another task"):
        evaluate._read(path, {"task": "pubmedqa"})
