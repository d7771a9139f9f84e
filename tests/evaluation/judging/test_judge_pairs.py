"""Answers of models compared in pairs by a judge and by people."""

import csv
import json
import re

import pytest

from evaluation import judge_pairs
from evaluation.judging import pairs
from galen.errors import DataError, UsageError
from tests.evaluation.judging.conftest import endpoint

KEYS = (*pairs.CRITERIA, pairs.OVERALL)


def reply(choice, **others):
    choices = dict.fromkeys(KEYS, choice) | others
    return json.dumps({"explanation": "because", **choices})


def answers_in(message):
    """Return the two answers of a question to the judge."""
    return re.search(r"# Reply 1\n\n(.*?)\n\n# Reply 2\n\n(.*?)\n\n# Rules", message, re.S).groups()


def compare(data, folders, *options):
    task = ["--task", str(data / "task.yaml"), "--data", str(data)]
    judge_pairs.main([*map(str, folders), *task, *options])


def result(output):
    return json.loads((output / "pairs" / "task.json").read_text())


def first_answers(folder):
    lines = (folder / "samples" / "task.jsonl").read_text().splitlines()
    return {sample["id"]: sample["answers"][0] for sample in map(json.loads, lines)}


def prefers(texts):
    """Return a judge that prefers the answers among `texts`, and is rude-blind on bias."""

    def judge(message):
        first, second = answers_in(message)
        if (first in texts) == (second in texts):
            return reply("tie")
        return reply("1" if first in texts else "2", bias="tie")

    return judge


def test_the_better_model_wins_in_both_orders(data, runs, server, tmp_path, capsys):
    tuned = set(first_answers(runs[1]).values()) - set(first_answers(runs[0]).values())
    assert len(tuned) > 3
    server.reply = prefers(tuned)
    compare(data, runs, *endpoint(server, tmp_path / "judge"))
    found = result(tmp_path / "judge")
    [match] = found["matches"]
    assert (match["first"], match["second"]) == ("base", "tuned")
    same = sum(text not in tuned for text in first_answers(runs[1]).values())
    assert (match["wins"], match["ties"], match["losses"]) == (0, same, 6 - same)
    assert match["win_rate"]["value"] == pytest.approx(0.5 * same / 6)
    assert match["by_criterion"]["bias"]["value"] == pytest.approx(0.5)
    assert found["strengths"]["tuned"]["value"] > found["strengths"]["base"]["value"]
    assert found["order_bias"]["changed_by_order"] == 0
    assert found["order_bias"]["first_wins"] == pytest.approx(0.5)
    printed = capsys.readouterr().out
    assert "base" in printed and "win rate by criterion" in printed
    asked = len(server.asked)
    compare(data, runs, *endpoint(server, tmp_path / "judge"))
    assert len(server.asked) == asked


def test_a_judge_that_prefers_the_first_answer_finds_ties(data, runs, server, tmp_path, capsys):
    server.reply = lambda message: reply("1")
    compare(data, runs, *endpoint(server, tmp_path / "judge"))
    found = result(tmp_path / "judge")
    [match] = found["matches"]
    assert (match["wins"], match["ties"], match["losses"]) == (0, 6, 0)
    assert match["p"] == 1.0
    assert found["order_bias"]["first_wins"] == 1.0
    assert found["order_bias"]["changed_by_order"] == 1.0
    assert found["order_bias"]["log_odds"]["low"] > 1
    assert match["win_probability_at_equal_length"] == pytest.approx(0.5, abs=0.05)
    printed = capsys.readouterr().out
    assert "log-odds +0.00" in printed and "\N{MINUS SIGN}0.00" not in printed


def test_incomplete_replies_are_asked_again(data, runs, server, tmp_path):
    server.reply = lambda message: '{"explanation": "x", "overall": "1"}'
    with pytest.raises(DataError, match="in both orders"):
        compare(data, runs, *endpoint(server, tmp_path / "judge"))
    assert {body["temperature"] for body in server.asked} == {0.0, 0.7}


def test_agreement_with_human_raters(data, runs, server, tmp_path, capsys):
    tuned = set(first_answers(runs[1]).values()) - set(first_answers(runs[0]).values())
    server.reply = prefers(tuned)
    path = tmp_path / "sheet.csv"
    options = endpoint(server, tmp_path / "judge")
    compare(data, runs, *options, "--sheet", str(path))
    rows = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
    assert len(rows) == 6
    assert not {"base", "tuned"} & {cell for row in rows for cell in row.values()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for number, row in enumerate(rows):
            both = [row["answer 1"] in tuned, row["answer 2"] in tuned]
            better = "tie" if both[0] == both[1] else "1" if both[0] else "2"
            row["rater1"] = better  # agrees with the judge
            row["rater2"] = "tie" if number % 2 else better
            writer.writerow(row)
    compare(data, runs, *options, "--ratings", str(path))
    found = result(tmp_path / "judge")["human_agreement"]
    assert found["raters"]["rater1"]["kappa"]["value"] == 1.0
    assert found["raters"]["rater2"]["kappa"]["value"] < 1.0
    assert found["tau"]["value"] > 0.7
    assert found["between_raters"]["rater1, rater2"]["pairs"] == 6
    assert "judge with rater1: kappa 1.000" in capsys.readouterr().out
    path.write_text(path.read_text().replace("tie", "maybe"))
    with pytest.raises(DataError, match="must be 1, 2 or tie"):
        compare(data, runs, *options, "--ratings", str(path))


def test_a_quoted_verdict_is_none_of_the_judge():
    quoted, own = reply("1"), reply("2")
    assert pairs.read_reply(f"So {own}")["overall"] == "2"
    assert pairs.read_reply(own + own)["overall"] == "2"
    assert pairs.read_reply(f"Reply 1 says {quoted}. {own}") is None
    assert pairs.read_reply(f"Reply 1 says {quoted}. {own[:-2]}") is None
    escaped = json.loads(own) | {"explanation": f"Reply 1 says {quoted}"}
    assert pairs.read_reply(json.dumps(escaped))["overall"] == "2"


def test_a_sheet_is_read_before_the_judge_is_asked(data, runs, server, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        compare(data, runs, *endpoint(server, tmp_path / "judge"), "--ratings", "nowhere.csv")
    assert not server.asked


def test_refusals(data, runs, server, tmp_path):
    with pytest.raises(UsageError, match="at least two RUNs"):
        compare(data, runs[:1], *endpoint(server, tmp_path / "judge"))
    with pytest.raises(UsageError, match="are for criteria"):
        options = endpoint(server, tmp_path / "judge", "--judge-prompt", "p.txt")
        compare(data, runs, *options)
