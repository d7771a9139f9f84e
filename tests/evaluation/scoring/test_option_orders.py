"""Scores over several orders of the options, on a tiny random Llama."""

import json

import pytest

from evaluation import report, run
from evaluation.metrics import intervals, order_bias
from evaluation.question_sets import option_order, question
from galen.errors import UsageError


@pytest.fixture
def arguments(tiny_llama, data, tmp_path):
    """Return a function that gives the arguments of a run on a data folder."""

    def of(output, folder=data, protocol="lm_eval", *more):
        return [
            *("--model", str(tiny_llama), "--tasks", "mesh_topics", "--data", str(folder)),
            *("--output", str(tmp_path / output), "--protocol", protocol, "--device", "cpu"),
            *("--num-fewshot", "0", *more),
        ]

    return of


def samples_of(path):
    return {
        sample["id"]: sample for sample in map(json.loads, path.read_text("utf-8").splitlines())
    }


def write_questions(folder, source, items):
    (folder / "questions").mkdir(parents=True)
    records = map(json.loads, (source / "questions" / "test.jsonl").read_text("utf-8").splitlines())
    with (folder / "questions" / "test.jsonl").open("w", encoding="utf-8") as file:
        for record in records:
            item = items[record["id"]]
            changed = record | {"options": item.options, "answer": item.answer}
            file.write(json.dumps(changed) + "\n")


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("lm_eval", []),
        ("meditron_zero_shot", []),
        ("meditron_cot", ["--max-new-tokens", "8"]),
        ("mmedbench", []),
    ],
)
def test_a_permuted_question_scores_as_one_with_the_options_in_this_order(
    arguments, data, tmp_path, protocol, more
):
    run.main(arguments("all", data, protocol, "--permute-options", "3", *more))
    original = {item.id: item for item in question.read(data / "questions" / "test.jsonl")}
    plain = samples_of(tmp_path / "all" / "samples" / "mesh_topics.jsonl")
    assert "order" not in plain["q0"]
    for number in (1, 2):
        permuted = {
            id_: option_order.permuted(item, 3, 0)[number] for id_, item in original.items()
        }
        folder = tmp_path / f"data{number}"
        write_questions(folder, data, {id_: item.question for id_, item in permuted.items()})
        run.main(arguments(f"only{number}", folder, protocol, *more))
        expected = samples_of(tmp_path / f"only{number}" / "samples" / "mesh_topics.jsonl")
        actual = samples_of(tmp_path / "all" / "samples" / f"mesh_topics.order{number}.jsonl")
        assert set(actual) == set(original)
        for id_, sample in actual.items():
            item = permuted[id_]
            assert tuple(sample["order"]) == item.order
            assert sample["answer"] == original[id_].answer
            assert sample["correct"] == expected[id_]["correct"]
            shown = expected[id_]["prediction"]
            assert sample["prediction"] == item.original_labels(shown)
            if shown:
                assert sample["position"] == "ABCD".index(shown) + 1
            for label, value in expected[id_].get("logprobs", {}).items():
                assert sample["logprobs"][item.original_label(label)] == value
            assert sample.get("outputs") == expected[id_].get("outputs")


def test_results_table_and_report_have_the_order_bias(arguments, data, tmp_path, capsys):
    path = data / "questions" / "test.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    records[0]["options"]["D"] = "All of the above"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    run.main(arguments("scores", data, "lm_eval", "--permute-options", "4"))
    assert "accuracy, all orders" in capsys.readouterr().out
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    entry = results["tasks"]["mesh_topics"]["order_bias"]
    assert entry["questions"] == 8 and entry["orders"] == 4
    assert entry["excluded"] == {"refers_to_options": 1, "options_not_shown": 0}
    assert [position["expected"] for position in entry["by_position"]] == [0.25] * 4
    chosen = sum(position["chosen"]["value"] for position in entry["by_position"])
    assert chosen == pytest.approx(1.0)
    page = tmp_path / "report.html"
    report.main([str(tmp_path / "scores"), "--output", str(page)])
    html = page.read_text("utf-8")
    assert 'id="order"' in html and "1 questions with options that refer to others" in html


def test_an_interrupted_run_resumes_and_the_number_is_part_of_its_identity(
    arguments, data, tmp_path
):
    command = arguments("scores", data, "lm_eval", "--permute-options", "4")
    run.main(command)
    scores = tmp_path / "scores"
    complete = {path: path.read_bytes() for path in (scores / "samples").iterdir()}
    for name in ("results.json", "manifest.json", "samples/mesh_topics.order3.jsonl"):
        (scores / name).unlink()
    part = scores / "samples" / "mesh_topics.order2.jsonl"
    part.write_bytes(part.read_bytes()[:900])
    run.main(command)
    assert {path: path.read_bytes() for path in (scores / "samples").iterdir()} == complete
    for other in (["--permute-options", "3"], ["--permute-options", "4", "--permute-seed", "1"]):
        with pytest.raises(UsageError, match="permute_"):
            run.main(arguments("scores", data, "lm_eval", *other))
    with pytest.raises(UsageError, match="permute_options"):
        run.main(arguments("scores", data, "lm_eval"))


def test_where_the_options_are_not_shown_nothing_is_permuted(arguments, data):
    with pytest.raises(UsageError, match="no task has questions whose options can be shown"):
        run.main(arguments("scores", data, "lm_eval_continuation", "--permute-options", "4"))
    with pytest.raises(UsageError, match="must be at least 2"):
        run.main(arguments("scores", data, "lm_eval", "--permute-options", "1"))


def sample(order, prediction, answer="A"):
    return {
        "order": list(order),
        "prediction": prediction,
        "answer": answer,
        "correct": prediction == answer,
    }


def test_the_metrics_of_a_model_that_always_takes_the_first_position():
    """Three options in cyclic shifts: right in one of three orders, never consistent."""
    orders = ["ABC", "BCA", "CAB"]
    questions = [[[sample(order, order[0], answer) for order in orders]] for answer in "ABCABC"]
    entry = order_bias.entry(questions)
    values = {key: value["value"] for key, value in entry.items() if isinstance(value, dict)}
    assert values == {
        "accuracy": pytest.approx(1 / 3),
        "accuracy_original_order": pytest.approx(1 / 3),
        "all_orders_correct": 0,
        "changed_answers": 1,
        "changed_questions": 1,
        "unparsed": 0,
    }
    # every question has the same mean: the questions are the clusters, not the 18 answers
    assert entry["accuracy"]["low"] == entry["accuracy"]["high"] == pytest.approx(1 / 3)
    assert entry["accuracy_original_order"]["low"] < 1 / 3
    # never right, always changed: as wide as six questions allow
    assert entry["all_orders_correct"] == intervals.accuracy([0] * 6).as_dict()
    assert entry["changed_answers"] == intervals.accuracy([1] * 6).as_dict()
    assert entry["by_position"][0]["chosen"] == intervals.accuracy([1] * 6).as_dict()
    chosen = [position["chosen"]["value"] for position in entry["by_position"]]
    accuracy = [position["accuracy"]["value"] for position in entry["by_position"]]
    assert chosen == [1, 0, 0] and accuracy == [1, 0, 0]


def test_the_metrics_of_a_model_that_knows_half_of_the_answers():
    right = [[[sample(order, "A") for order in ("AB", "BA")]]] * 2
    wrong = [[[sample(order, None) for order in ("AB", "BA")]]] * 2
    entry = order_bias.entry(right + wrong)
    assert entry["accuracy"]["value"] == entry["all_orders_correct"]["value"] == 0.5
    assert entry["changed_answers"]["value"] == 0 and entry["unparsed"]["value"] == 0.5
    assert [position["chosen"]["value"] for position in entry["by_position"]] == [0.25, 0.25]
    # several right options have no single position
    several = [[[sample("AB", "A,B", "A,B"), sample("BA", "A,B", "A,B")]]]
    assert order_bias.entry(several)["by_position"] == []
