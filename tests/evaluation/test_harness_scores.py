"""The protocol `lm_eval` against lm-evaluation-harness itself, item by item.

With its own prompts and model class, on local files.
"""

import json

import pytest

from evaluation import run
from evaluation.question_sets import english

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is in the extra `test`")

# The harness' own prompt functions (lm_eval/tasks/{medqa,medmcqa,pubmedqa}/*.py,
# tasks/mmlu/default) as local tasks over local files.
PUBMEDQA = """
task: galen_pubmedqa
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: !function lm_eval.tasks.pubmedqa.preprocess_pubmedqa.doc_to_text
doc_to_target: final_decision
doc_to_choice: ["yes", "no", "maybe"]
"""
MEDMCQA = """
task: galen_medmcqa
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: !function lm_eval.tasks.medmcqa.utils_medmcqa.doc_to_text
doc_to_target: cop
doc_to_choice: ["A", "B", "C", "D"]
"""
MMLU = """
task: galen_mmlu
description: "The following are multiple choice questions (with answers) about anatomy.\\n\\n"
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question.strip()}}}}\\n\
A. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\n\
C. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: ["A", "B", "C", "D"]
"""
CONTINUATION = """
task: galen_continuation
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question.strip()}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
"""
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
WORDS = [
    "heart",
    "liver",
    "aspirin",
    "sodium",
    "the",
    "of",
    "in",
    "adults",
    "fever",
    "dose",
    "kidney",
    "rats",
    "12",
    "mg",
    "weeks",
    "risk",
    "stroke",
    "lowered",
]


def phrase(seed, count):
    """Return words that a seed decides, so that questions differ in length."""
    return " ".join(
        WORDS[(seed * 7 + place * (seed % 5 + 1)) % len(WORDS)] for place in range(count)
    )


def records(kind, count):
    for n in range(count):
        if kind == "pubmedqa":
            contexts = [phrase(n, 9), phrase(n + 3, 12)]
            yield {
                "pubid": 1000 + n,
                "QUESTION": f"{phrase(n, 5)}?",
                "CONTEXTS": contexts,
                "final_decision": ("yes", "no", "maybe")[n % 3],
            }
        elif kind == "medmcqa":
            yield {
                f"op{letter}": phrase(n + place, 1 + n % 3) for place, letter in enumerate("abcd")
            } | {
                "id": f"m{n}",
                "question": f"{phrase(n, 4 + n % 6)}?",
                "cop": n % 4,
            }
        else:
            choices = [phrase(n + place, 1 + (n + place) % 4) for place in range(4)]
            yield {
                "question": f"{phrase(n, 3 + n % 7)}?",
                "subject": "anatomy",
                "choices": choices,
                "answer": n % 4,
            }


@pytest.fixture(scope="module")
def harness(tiny_llama, tmp_path_factory):
    """Return a function that scores records with the harness and with Galen.

    It returns the harness' log-likelihoods and predictions, and our samples.
    """
    environment = pytest.MonkeyPatch()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        environment.setenv(name, "1")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(tiny_llama), device="cpu", dtype="float32", batch_size=8)

    def both(kind, template, protocol, ours=""):
        work = tmp_path_factory.mktemp(kind)
        rows = list(records(kind, 20))
        (work / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (work / "train.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in list(records(kind, 24))[20:])
        )
        (work / "harness.yaml").write_text(
            template.format(file=work / "test.jsonl", train=work / "train.jsonl")
        )
        environment.setenv("HF_DATASETS_CACHE", str(work / "cache"))
        manager = TaskManager(include_path=str(work), include_defaults=False)
        name = template.split("task: ")[1].split()[0]
        found = lm_eval.simple_evaluate(
            model=model, tasks=[name], task_manager=manager, bootstrap_iters=0
        )
        theirs = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        (work / "ours.yaml").write_text(
            ours or f"kind: multiple_choice\nfile: test.jsonl\nreader: {kind}\n"
        )
        arguments = [
            "--model",
            str(tiny_llama),
            "--tasks",
            str(work / "ours.yaml"),
            "--data",
            str(work),
            "--output",
            str(work / "scores"),
        ]
        run.main([*arguments, "--protocol", protocol, "--device", "cpu"])
        samples = {
            item["id"]: item
            for item in map(
                json.loads, (work / "scores/samples/ours.jsonl").read_text().splitlines()
            )
        }
        ids = [
            row.get("id") or (str(row["pubid"]) if "pubid" in row else f"test:{n}")
            for n, row in enumerate(rows, start=1)
        ]
        return theirs, [samples[id_] for id_ in ids], found["results"][name]["acc,none"]

    yield both
    environment.undo()


@pytest.mark.parametrize(
    ("kind", "template", "protocol", "own_task"),
    [
        ("pubmedqa", PUBMEDQA, "lm_eval", ""),
        ("medmcqa", MEDMCQA, "lm_eval", ""),
        ("mmlu", MMLU, "lm_eval", ""),
        ("mmlu", CONTINUATION, "lm_eval_continuation", ""),
        ("mmlu", OWN, "lm_eval", OURS),
    ],
)
def test_the_same_log_likelihoods_and_predictions_item_by_item(
    harness, kind, template, protocol, own_task
):
    theirs, ours, accuracy = harness(kind, template, protocol, own_task)
    for reference, sample in zip(theirs, ours, strict=True):
        logprobs = [float(response[0][0]) for response in reference["resps"]]
        assert list(sample["logprobs"].values()) == pytest.approx(logprobs, abs=1e-4)
        assert english.LETTERS.index(sample["prediction"]) == logprobs.index(max(logprobs))
        assert float(sample["correct"]) == reference["acc"]
    assert sum(sample["correct"] for sample in ours) / len(ours) == pytest.approx(accuracy)
    assert len({sample["prediction"] for sample in ours}) > 1, "always the same answer"
