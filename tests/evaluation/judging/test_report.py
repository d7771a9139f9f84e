"""Scores of judges in the report."""

import json

import pytest

from evaluation import judge, judge_agreement, judge_pairs, progress, report
from evaluation.judging import pairs
from galen.errors import DataError, UsageError
from tests.evaluation.judging.conftest import endpoint, verdict


@pytest.fixture
def judges(data, runs, server, tmp_path):
    """The folders of two judges; the first one's agreement is known."""
    task = ["--task", str(data / "task.yaml"), "--data", str(data)]
    first = endpoint(server, tmp_path / "first")
    judge.main([*map(str, runs), *task, *first])
    labeled = {
        "prompt": [{"role": "user", "content": "Question"}],
        "completion": "Answer",
        "rubric": "names the dose",
        "category": "cluster:hedging_any",
        "binary_labels": [True, True],
    }
    (tmp_path / "meta.jsonl").write_text(json.dumps(labeled) + "\n")
    judge_agreement.main(["--meta-eval", str(tmp_path / "meta.jsonl"), *first])
    second = [word if word != "judge-1" else "judge-2" for word in first]
    second[second.index(str(tmp_path / "first"))] = str(tmp_path / "second")
    server.reply = lambda message: verdict(False)
    judge.main([str(runs[0]), *task, *second])
    choices = dict.fromkeys((*pairs.CRITERIA, pairs.OVERALL), "tie")
    server.reply = lambda message: json.dumps({"explanation": "", **choices})
    judge_pairs.main([*map(str, runs), *task, *second])
    return [tmp_path / "first", tmp_path / "second"]


def test_each_judge_has_tables_of_its_own(judges, runs, tmp_path):
    page = tmp_path / "report.html"
    folders = ["--judges", *map(str, judges), "--output", str(page)]
    report.main([str(runs[0]), *folders])
    html = " ".join(page.read_text().split())
    assert html.count('<h3>task <span class="unit">judge judge-1; macro F1 against physicians') == 1
    assert html.count('<span class="unit">judge judge-2; agreement with physicians not') == 1
    assert html.count("Pairs of answers") == 1
    first, _, second = html.partition("judge judge-2; agreement")
    assert "Theme: global health" in first and "60.0 %" in first
    assert "<strong>0.0 %</strong>" in second
    with pytest.raises(UsageError, match="names a folder twice"):
        report.main([str(runs[0]), "--judges", *[str(judges[0])] * 2, "--output", str(page)])
    with pytest.raises(DataError, match="holds no scores"):
        report.main([str(runs[0]), "--judges", str(runs[0]), "--output", str(page)])


def test_judged_answers_are_tasks_of_a_study(judges, runs, tmp_path, capsys):
    folders = [str(folder) for folder in runs]
    output = ["--output", str(tmp_path / "progress")]
    with pytest.raises(DataError, match="no judge has scored"):
        progress.main([*folders, *output])
    progress.main([*folders, "--judges", str(judges[0]), *output])
    record = json.loads((tmp_path / "progress" / "tuned.json").read_text())
    [item] = record["tasks"]
    assert item["task"] == "task (judge-1)" and item["samples"] == 6
    assert item["tuned"]["base"]["value"] == pytest.approx(0.6) and item["outcome"] == "tie"
    assert "macro F1 against physicians" in item["notes"][0]
    with pytest.raises(DataError, match="no task for both"):
        progress.main([*folders, "--judges", str(judges[1]), *output])
