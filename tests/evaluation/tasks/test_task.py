import pytest

from evaluation.tasks import task
from galen.errors import DataError, UsageError


def test_built_in_tasks_load():
    for path in task.BUILT_IN.glob("*.yaml"):
        name, specification = task.load(path.stem)
        assert name == path.stem and specification.kind in task._KINDS


def test_a_task_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("kind: perplexity\ndocuments: papers\nmax_tokens: 99\n")
    assert task.load(str(path)) == (
        "mine",
        task.PerplexityTask(kind="perplexity", documents="papers", max_tokens=99),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind: perplexity\ndocuments: papers\nmax_token: 9\n",
            r"mine\.yaml, line 3: unknown key 'max_token'; did you mean 'max_tokens'\?",
        ),
        ("kind: perplexity\n", "key 'documents' is missing"),
        (
            "kind: cloze\nfile: a\n",
            r"key 'kind' must be one of multiple_choice, generation, .*, lm_eval, not 'cloze'",
        ),
        ("file: a.jsonl\n", "key 'kind' must be one of"),
        ("kind: multiple_choice\nfile: [a\n", "not valid YAML"),
    ],
)
def test_wrong_task_files(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        task.load(str(path))


def test_a_missing_task_file():
    with pytest.raises(UsageError, match=r"there is no task file missing\.yaml"):
        task.load("missing.yaml")
    with pytest.raises(UsageError, match=r"; did you mean '.*/mesh_topics\.yaml'"):
        task.load(str(task.BUILT_IN / "mesh_topic.yaml"))


def test_a_task_file_named_without_its_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heart.yaml").touch()
    with pytest.raises(UsageError, match=r"unknown task 'heart'; did you mean 'heart\.yaml'\?"):
        task.load("heart")


def test_missing_files_of_a_published_task(tmp_path):
    _, medqa = task.load("medqa")
    with pytest.raises(
        DataError, match=r"there is no file .*test\.jsonl; docs/evaluation/tasks\.md#down"
    ):
        medqa.files(tmp_path, medqa.file)
