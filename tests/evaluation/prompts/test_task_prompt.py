"""The wording of a task of its own."""

import json

import pytest

from evaluation import run
from evaluation.prompts.registry import get_template
from evaluation.protocols import task_settings
from evaluation.protocols.registry import get_protocol
from evaluation.question_sets.question import Question
from evaluation.scoring.multiple_choice import MultipleChoice
from evaluation.tasks import task
from galen.errors import DataError, UsageError

TASK = """kind: multiple_choice
file: test.jsonl
fields:
  id: case
  question: stem
  options: [o1, o2]
  answer: key
  subject: topic
fewshot_source: train.jsonl
num_fewshot: 1
fewshot_by_subject: true
metric: acc_bytes
prompt:
  description: "Answer as a doctor.\\n\\n"
  doc_to_text: |-
    {{ doc.age }} years. {{ question }}
    {% for label, text in options.items() -%}
    ({{ label }}) {{ text }}
    {% endfor -%}
    Answer:
  doc_to_choice: "{{ choices }}"
"""


@pytest.fixture
def data(tmp_path):
    for name, count in (("test", 4), ("train", 6)):
        records = [
            {
                "case": f"{name}{n}",
                "stem": f"Which {name} organ {n}?",
                "o1": "Heart",
                "o2": "the Liver",
                "key": "AB"[n % 2],
                "topic": ("anatomy", "surgery")[n % 2],
                "age": 40 + n,
            }
            for n in range(count)
        ]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "mine.yaml").write_text(TASK)
    return tmp_path


def prompt_of(folder, protocol="lm_eval", number=1):
    """Return the prompt of a question under a protocol, after its few-shot examples."""
    name, specification = task.load(str(folder / "mine.yaml"))
    questions = specification.questions(folder)
    settings = get_protocol(protocol)
    examples = MultipleChoice().few_shot(name, specification, folder, settings, questions)
    [shown] = examples.values()
    asked = questions[number]
    template = task_settings.template(specification, settings)
    return template(asked, shown.get(asked.subject) or shown[""])


def test_the_prompt_of_a_task(data):
    prompt = prompt_of(data)
    assert prompt.text == (
        "Answer as a doctor.\n\n"
        "41 years. Which train organ 1?\n(A) Heart\n(B) the Liver\nAnswer: the Liver\n\n"
        "41 years. Which test organ 1?\n(A) Heart\n(B) the Liver\nAnswer:"
    )
    assert prompt.continuations == {"A": " Heart", "B": " the Liver"}
    assert prompt.target == " the Liver"


def test_other_protocols_keep_their_wording_and_say_so(data, caplog):
    (data / "train.jsonl").write_text((data / "train.jsonl").read_text() * 2)
    prompt = prompt_of(data, "meditron_zero_shot")
    assert "Options:\nA. Heart\nB. the Liver" in prompt.text
    assert (
        "task mine: this protocol has its own wording and rules; ignored keys of the task: prompt,"
        " num_fewshot, metric, fewshot_by_subject" in caplog.text
    )


def test_a_prompt_that_hides_the_options_of_its_labels_is_named(data, caplog):
    yaml = data / "mine.yaml"
    hidden = TASK.partition("  doc_to_text")[0] + '  doc_to_text: "{{ question }}"\n'
    yaml.write_text(hidden + '  doc_to_choice: "{{ choices }}"\n')
    prompt_of(data)
    assert not caplog.records
    yaml.write_text(hidden)
    prompt_of(data)
    assert "key 'prompt.doc_to_text' shows none of the options" in caplog.text


def test_few_shot_rule_and_metric_of_a_task(data):
    _, mine = task.load(str(data / "mine.yaml"))
    published = get_protocol("lm_eval")
    settings = task_settings.settings(mine, published)
    assert (settings.num_fewshot, settings.metric) == (1, "acc_bytes")
    assert task_settings.settings(mine, get_protocol("meditron")) == get_protocol("meditron")
    text = TASK.replace("fewshot_by_subject: true", "fewshot_sampler: first_n")
    (data / "mine.yaml").write_text(text.replace("num_fewshot: 1", "num_fewshot: 2"))
    assert prompt_of(data, number=0).text.count("Which train organ") == 2
    assert "train organ 0" in prompt_of(data, number=0).text
    (data / "mine.yaml").write_text(text.replace("first_n", "random"))
    _, mine = task.load(str(data / "mine.yaml"))
    assert MultipleChoice().runs(mine, get_protocol("lm_eval", fewshot_seeds=(1, 2))) == [1, 2]


def test_options_of_the_recipe_and_results(data, tiny_llama, tmp_path):
    arguments = ["--model", str(tiny_llama), "--tasks", str(data / "mine.yaml")]
    arguments += ["--data", str(data), "--output", str(tmp_path / "scores")]
    assert run.main([*arguments, "--num-fewshot", "0", "--device", "cpu"]) == 0
    lines = (tmp_path / "scores" / "prompts" / "mine.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"test{n}" for n in range(4)]
    assert all("train organ" not in line for line in lines)
    entry = json.loads((tmp_path / "scores" / "results.json").read_text())["tasks"]["mine"]
    assert set(entry["settings"]) == {"prompt", "metric", "fewshot_by_subject"}
    samples = (tmp_path / "scores" / "samples" / "mine.jsonl").read_text().splitlines()
    for sample in map(json.loads, samples):  # the task's metric: likeliest per byte
        per_byte = {"A": sample["logprobs"]["A"] / 5, "B": sample["logprobs"]["B"] / 9}
        assert sample["prediction"] == max(per_byte, key=per_byte.get)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("doc.age", "doc.weight"), r"prompt\.doc_to_text': question 'test0': .*'weight'"),
        (("{{ question", "{{ stem"), "doc_to_text': question 'test0': 'stem' is undefined; def"),
        (("Answer as", "{{ doctor }}"), r"prompt\.description': .*'doctor' is undefined"),
        (("{{ choices }}", "{{ choices[0] }}"), "doc_to_choice': question 'test0': must be a"),
        (("{{ choices }}", "{{ ['x', 'x'] }}"), "two options have the same answer 'x'"),
    ],
)
def test_a_wrong_template_is_named_before_the_model_is_loaded(data, change, message):
    (data / "mine.yaml").write_text(TASK.replace(*change))
    with pytest.raises(DataError, match=rf"mine\.yaml: key '.*{message}"):
        prompt_of(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("{{ question }}", "{{ question }"),
            r"line 15: prompt\.doc_to_text: not a valid template",
        ),
        (("doc_to_choice", "doc_to_choices"), "unknown key 'prompt.doc_to_choices'; did you mean"),
        (("acc_bytes", "f1"), r"line 12: metric: .*'acc'"),
        (
            ("num_fewshot: 1", "num_fewshot: -1"),
            "line 10: num_fewshot: .*greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_task_file(data, change, message):
    (data / "mine.yaml").write_text(TASK.replace(*change))
    with pytest.raises(UsageError, match=rf"mine\.yaml, .*{message}"):
        task.load(str(data / "mine.yaml"))


def test_a_published_layout_with_wording_of_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: multiple_choice\nfile: a\nreader: medqa\nprompt:\n"
        '  doc_to_text: "Question: {{ question }}\\n{% for label in labels %}'
        '{{ label }}. {{ options[label] }}\\n{% endfor %}Answer:"\n'
    )
    _, mine = task.load(str(path))
    medqa = Question("1", "", "Which?", {"A": "one", "B": "two"}, "B", "medqa")
    published = get_template("lm_eval")
    assert task_settings.template(mine, get_protocol("lm_eval"))(medqa) == published(medqa)
