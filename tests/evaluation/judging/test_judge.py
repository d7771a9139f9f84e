"""Answers scored against rubrics by a judge, and the judge against physicians."""

import json
import shutil

import pytest

from evaluation import judge, judge_agreement
from evaluation.judging import verdicts
from evaluation.judging.judge import Reply
from evaluation.question_sets import rubric_reader
from galen.errors import DataError, OutputConflictError, UsageError
from tests.evaluation.judging.conftest import conversation, endpoint
from tests.evaluation.judging.conftest import verdict as reply


def score(data, folders, *options):
    task = ["--task", str(data / "task.yaml"), "--data", str(data)]
    judge.main([*map(str, folders), *task, *options])


def scores(output, name):
    return json.loads((output / "scores" / f"{name}.task.json").read_text())


def test_scores_are_those_of_the_rubric(data, runs, server, tmp_path, capsys, caplog):
    score(data, runs, *endpoint(server, tmp_path / "judge"))
    assert "under different settings (num_samples, temperature)" in caplog.text
    found = scores(tmp_path / "judge", "base")
    assert found["samples"] == 6 and found["unjudged"] == 0 and found["judge"] == "judge-1"
    # 6 of 10 positive points in each conversation; of the axis accuracy 6 of 6
    assert found["score"]["value"] == pytest.approx(0.6)
    parts = {tag: part["value"] for tag, part in found["by_tag"].items()}
    assert parts == {
        "axis:accuracy": 1.0,
        "axis:completeness": 0.0,
        "level:example": 1.0,
        "theme:global_health": pytest.approx(0.6),
        "theme:hedging": pytest.approx(0.6),
    }
    assert scores(tmp_path / "judge", "tuned")["worst_at_k"] == pytest.approx([0.6] * 3)
    difference = scores(tmp_path / "judge", "tuned")["difference"]
    assert difference["value"] == 0 and difference["p"] == 1 and difference["from"] == "base"
    printed = capsys.readouterr().out
    assert "judge-1; agreement with physicians not measured" in printed
    assert "level:example" not in printed and "axis:accuracy" in printed
    # the schema forces the reply; the points are not shown to the judge
    assert server.asked[0]["response_format"]["json_schema"]["schema"]["required"]
    assert "[6]" not in server.asked[0]["messages"][0]["content"]


def test_nothing_is_asked_twice(data, runs, server, tmp_path):
    score(data, runs[:1], *endpoint(server, tmp_path / "judge"))
    asked = len(server.asked)
    assert 0 < asked <= 18
    score(data, runs[:1], *endpoint(server, tmp_path / "judge"))
    assert len(server.asked) == asked
    score(data, runs, *endpoint(server, tmp_path / "judge"))
    messages = [body["messages"][0]["content"] for body in server.asked]
    assert len(messages) == len(set(messages)) > asked


def test_an_interrupted_run_resumes(data, runs, server, tmp_path):
    known = []

    def fails_after_five(message):
        known.append(message)
        return 400 if len(known) > 5 else reply(False)

    server.reply = fails_after_five
    options = endpoint(server, tmp_path / "judge", "--concurrency", "1")
    with pytest.raises(DataError, match="400"):
        score(data, runs[:1], *options)
    lines = (tmp_path / "judge" / "replies.jsonl").read_text().splitlines()
    assert len(lines) == 5
    # half a line, as a kill leaves it
    (tmp_path / "judge" / "replies.jsonl").write_text("\n".join(lines[:4]) + "\n" + lines[4][:9])
    server.reply = lambda message: reply(True)
    server.asked.clear()
    score(data, runs[:1], *options)
    # 4 of the verdicts are known, that of the half line is in requests.jsonl
    unique = {body["messages"][0]["content"] for body in server.asked}
    assert len(unique) == len(server.asked) and not unique & set(known[:5])
    assert scores(tmp_path / "judge", "base")["samples"] == 6


def test_replies_without_a_verdict_are_asked_again_and_counted(data, runs, server, tmp_path):
    def unclear(message):
        return "is rude" in message and "Question 1" in message

    server.reply = lambda message: "I think so" if unclear(message) else reply(True)
    score(data, runs[:1], *endpoint(server, tmp_path / "judge"))
    asked = [body for body in server.asked if unclear(body["messages"][0]["content"])]
    assert [body["temperature"] for body in asked] == [0.0, 0.7, 0.7]
    found = scores(tmp_path / "judge", "base")
    assert (found["samples"], found["unjudged"]) == (5, 1)
    assert found["score"]["value"] == pytest.approx(0.5)
    lines = (tmp_path / "judge" / "scores" / "base.task.samples.jsonl").read_text().splitlines()
    records = {record["id"]: record for record in map(json.loads, lines)}
    assert records["c1"]["is_met"] == [[True, True, None]] and records["c1"]["score"] is None


def test_the_folder_belongs_to_one_judge(data, runs, server, tmp_path):
    score(data, runs[:1], *endpoint(server, tmp_path / "judge"))
    options = endpoint(server, tmp_path / "judge")
    options[options.index("judge-1")] = "judge-2"
    with pytest.raises(OutputConflictError, match="judge-2"):
        score(data, runs[:1], *options)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("<<conversation>> <<rubric_item>> Reply as JSON")
    with pytest.raises(OutputConflictError, match="prompt_sha256"):
        score(data, runs[:1], *endpoint(server, tmp_path / "judge", "--judge-prompt", str(prompt)))
    score(data, runs[:1], *endpoint(server, tmp_path / "other", "--judge-prompt", str(prompt)))
    assert "[6] names the dose Reply as JSON" in server.asked[-1]["messages"][0]["content"] or any(
        "[6] names the dose Reply" in body["messages"][0]["content"] for body in server.asked
    )


def test_a_local_judge_compares_yes_and_no(data, runs, model, tmp_path):
    options = ["--output", str(tmp_path / "judge"), "--model", str(model), "--device", "cpu"]
    score(data, runs[:1], *options, "--chat-template", "none")
    lines = (tmp_path / "judge" / "replies.jsonl").read_text().splitlines()
    known = [json.loads(line)["reply"] for line in lines]
    assert all("log-likelihood of Yes" in verdict["explanation"] for verdict in known)
    assert scores(tmp_path / "judge", "base")["samples"] == 6


def test_the_estimate_alone_asks_nothing(data, runs, server, tmp_path, capsys):
    options = endpoint(server, tmp_path / "judge", "--estimate-only", "--price-in", "2")
    score(data, runs[:1], *options)
    assert not server.asked
    printed = capsys.readouterr().out
    assert "18 requests" in printed and "cost about" in printed


def test_refusals(data, runs, server, tmp_path):
    with pytest.raises(UsageError, match="which judge"):
        score(data, runs, "--output", str(tmp_path / "judge"))
    with pytest.raises(UsageError, match="a model named base"):
        score(data, [runs[0], runs[0]], *endpoint(server, tmp_path / "judge"))
    with pytest.raises(UsageError, match="has no rubrics"):
        task = ["--task", "medqa", "--data", str(data)]
        judge.main([str(runs[0]), *task, *endpoint(server, tmp_path / "judge")])
    with pytest.raises(DataError, match=r"has no results\.json"):
        score(data, [tmp_path], *endpoint(server, tmp_path / "judge"))
    other = tmp_path / "data"
    other.mkdir()
    (other / "task.yaml").write_text((data / "task.yaml").read_text())
    (other / "talks.jsonl").write_text((data / "talks.jsonl").read_text().replace("rude", "mean"))
    with pytest.raises(DataError, match="answered another talks"):
        score(other, runs, *endpoint(server, tmp_path / "judge"))
    assert not (tmp_path / "judge").exists()


def labeled(number, labels, category="cluster:hedging_any"):
    return {
        "prompt": [{"role": "user", "content": f"Question {number}"}],
        "completion": f"Answer {number}",
        "rubric": "names the dose" if number % 2 else "is complete",
        "category": category,
        "binary_labels": labels,
        "anonymized_physician_ids": [f"p{index}" for index in range(len(labels))],
        "prompt_id": f"p{number}",
        "completion_id": f"a{number}",
    }


def test_agreement_with_physicians(server, tmp_path, capsys):
    """The judge finds odd answers right; the physicians find so for all but one odd answer."""
    rows = [labeled(number, [bool(number % 2)] * 2) for number in range(8)]
    rows[1]["binary_labels"] = [False, True]
    rows[7]["category"] = "cluster:global_health_any"
    path = tmp_path / "meta.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    options = ["--meta-eval", str(path), "--repeats", "2", *endpoint(server, tmp_path / "judge")]
    judge_agreement.main(options)
    found = json.loads((tmp_path / "judge" / "agreement.json").read_text())
    # of 16 pairs 7 are yes/yes, 8 no/no, 1 yes/no
    f1 = (2 * 7 / (2 * 7 + 1) + 2 * 8 / (2 * 8 + 1)) / 2
    assert found["macro_f1"]["value"] == pytest.approx(f1)
    assert found["by_theme"]["global_health"]["samples"] == 1
    assert found["by_theme"]["hedging"]["samples"] == 7
    assert found["self_consistency"] == 1.0
    # each physician against the other: 15 of 16 labels agree from both sides
    physicians = [(3, 1, 0, 4), (3, 0, 1, 4)]
    means = [(2 * a / (2 * a + b + c) + 2 * d / (2 * d + b + c)) / 2 for a, b, c, d in physicians]
    assert found["physicians_macro_f1"] == pytest.approx(sum(means) / 2)
    assert "repeats agree in 100.0 %" in capsys.readouterr().out
    assert {body["temperature"] for body in server.asked} == {0.0, 1.0}
    with pytest.raises(UsageError, match="--limit must be at least 1"):
        judge_agreement.main([*options, "--limit", "0"])
    unread = [[Reply(True), Reply(None)]] * 2
    assert judge_agreement._consistency(unread) == 0.5


def test_two_judges_are_compared(data, runs, server, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    score(data, runs, *endpoint(server, first))
    server.reply = lambda message: reply("names the dose" in message or "is rude" in message)
    score(data, runs, *endpoint(server, second))
    capsys.readouterr()
    judge_agreement.main(["--compare", str(first), str(second)])
    printed = capsys.readouterr().out
    # two of three verdicts are the same: kappa (2/3 - 4/9) / (1 - 4/9)... of 1/3 and 2/3 yes
    expected = (2 / 3 - 4 / 9) / (1 - 4 / 9)
    assert f"base.task: 18 criteria, the same verdict on 66.7 %, Cohen's kappa {expected:.3f}" in (
        printed
    )
    assert "base.task: score 60.0 and 10.0 %, -50.0 points" in printed
    assert "task: the same order of 0 of 1 pairs of models" in printed
    with pytest.raises(DataError, match="nothing in common"):
        judge_agreement.main(["--compare", str(first), str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"explanation": "x", "criteria_met": true}', True),
        ('```json\n{"explanation": "x", "criteria_met": false}\n```', False),
        ('Sure: {"explanation": "a "quoted" word", "criteria_met": true}', True),
        ('"criteria_met": true, then "criteria_met": false', None),
        ('{"criteria_met": "true"}', None),
        ('{"criteria_met": true, "criteria_met": false}', None),
        # the answer's own "verdict", quoted by a judge whose own cannot be read
        ('{"explanation": "it says "criteria_met": true", "criteria_met": "no"}', None),
        ("Yes", None),
        ("", None),
    ],
)
def test_replies(text, verdict):
    assert verdicts.read_reply(text) is verdict


def test_all_questions_fit_the_judge_before_one_is_asked(data, runs, model, tmp_path):
    long = tmp_path / "tuned"
    shutil.copytree(runs[1], long)
    path = long / "samples" / "task.jsonl"
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    samples[-1]["answers"][-1] = "word " * 9000
    path.write_text("\n".join(map(json.dumps, samples)) + "\n")
    options = ["--output", str(tmp_path / "judge"), "--model", str(model), "--device", "cpu"]
    with pytest.raises(DataError, match="the judge's context has 4,096"):
        score(data, [runs[0], long], *options, "--chat-template", "none")
    assert (tmp_path / "judge" / "replies.jsonl").read_text() == ""


def renamed(folder, output, name):
    """Return a copy of a run under another model name."""
    shutil.copytree(folder, output)
    path = output / "results.json"
    results = json.loads(path.read_text())
    results["model"]["name"] = name
    path.write_text(json.dumps(results))
    return output


def test_models_do_not_share_a_file_of_scores(data, runs, server, tmp_path, caplog):
    first = renamed(runs[0], tmp_path / "first", "a/judge-1")
    second = renamed(runs[0], tmp_path / "second", "a.judge-1")
    with pytest.raises(UsageError, match=r"a/judge-1 and a\.judge-1 would have the same files"):
        score(data, [first, second], *endpoint(server, tmp_path / "judge"))
    score(data, [first], *endpoint(server, tmp_path / "judge"))
    with pytest.raises(DataError, match="has the scores of a/judge-1"):
        score(data, [second], *endpoint(server, tmp_path / "judge"))
    own = renamed(runs[0], tmp_path / "own", "judge-1")
    assert "judges its own answers" not in caplog.text
    score(data, [own], *endpoint(server, tmp_path / "judge"))
    assert "judge-1 judges its own answers" in caplog.text


def test_samples_of_several_processes(data, runs, server, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(runs[0], folder)
    path = folder / "samples" / "task.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    other = {**json.loads(lines[0]), "answers": ["another"]}  # scored twice: the first counts
    path.write_text("".join(lines[:3]))
    path.with_name("task.rank1.jsonl").write_text(json.dumps(other) + "\n" + "".join(lines[3:]))
    score(data, [folder], *endpoint(server, tmp_path / "judge"))
    assert scores(tmp_path / "judge", "base")["samples"] == 6
    assert not any("another" in body["messages"][0]["content"] for body in server.asked)


def test_a_placeholder_in_a_conversation_stays():
    question = verdicts.Question(
        [{"role": "user", "content": "What is <<criterion>>?"}],
        "That",
        rubric_reader.Criterion("C", 2.0),
    )
    text = question.text("<<conversation>>|<<criterion>>")
    assert text == "user: What is <<criterion>>?\n\nassistant: That|C"


PROFESSIONAL = {
    "id": "h1",
    "conversation": {"messages": [{"role": "user", "content": "Write a note"}]},
    "rubric_items": [{"criterion_text": "has a plan", "points": 10}],
    "use_case": "writing",
    "specialty": "cardiology",
    "physician_response": "…",
}


def test_the_layout_of_healthbench_professional(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PROFESSIONAL) + "\n")
    [item] = rubric_reader.read(path, "healthbench_professional")
    assert item.id == "h1" and item.rubric[0].text == "has a plan"
    assert item.tags == ("use_case:writing", "specialty:cardiology")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "list of messages"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "needs 'role'"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "must be the user's"),
        ({"rubrics": [{"criterion": "x", "points": "3"}]}, "'points', a number"),
        ({"rubrics": [{"criterion": "x", "points": float("nan")}]}, "not JSON|a number"),
        ({"rubrics": [{"criterion": "x", "points": -3}]}, "positive points"),
        ({"rubrics": None}, "list of criteria"),
        ({"prompt_id": None}, "prompt_id"),
        ({"example_tags": "theme"}, "list of texts"),
    ],
)
def test_damaged_conversations(tmp_path, change, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**conversation(0, "hedging"), **change}) + "\n")
    with pytest.raises(DataError, match=message):
        rubric_reader.read(path, "healthbench")


def test_an_id_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps(conversation(0, "hedging"))
    path.write_text(f"{row}\n{row}\n")
    with pytest.raises(DataError, match="occurs twice"):
        rubric_reader.read(path, "healthbench")
