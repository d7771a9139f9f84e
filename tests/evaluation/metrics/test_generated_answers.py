"""pass@k against its definition, and the metrics of generated answers."""

import itertools
import math

import pytest

from evaluation.metrics import aggregate, generated_answers
from evaluation.metrics.pass_at_k import pass_at_k


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 1), (5, 3), (5, 5), (8, 2)])
def test_pass_at_k_is_the_share_of_draws_with_a_correct_answer(n, c):
    answers = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(answers, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
        # the numerically stable form of the paper's figure 3
        product = math.prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 0.0
        assert pass_at_k(n, c, k) == pytest.approx(1 - product)


def test_pass_at_k_beyond_the_answers_is_undefined():
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(4, 1, 5)


def sample(id_, answers, thinking=None, cut_off=None):
    prediction = next((answer for answer in answers if answer), None)
    return {
        "id": id_,
        "answer": "A",
        "prediction": prediction,
        "correct": prediction == "A",
        "outputs": [""] * len(answers),
        "extracted_answers": answers,
        "num_tokens": [10, 20, 30][: len(answers)],
        "reached_limit": cut_off or [False] * len(answers),
        "truncated_thinking": cut_off or [False] * len(answers),
    } | ({} if thinking is None else {"num_thinking_tokens": thinking})


def test_several_answers_have_pass_at_k_and_tokens():
    run = [sample("1", ["A", "B", "A"]), sample("2", ["B", None, "B"])]
    estimates = generated_answers.estimates([run])
    assert set(estimates) == {"tokens_per_answer", "pass@1", "pass@2", "pass@3"}
    values = {name: estimate.value for name, estimate in estimates.items()}
    assert values == pytest.approx(
        {"tokens_per_answer": 20, "pass@1": 1 / 3, "pass@2": 0.5, "pass@3": 0.5}
    )


def test_cut_off_thinking_is_not_unparsed():
    run = [
        sample("1", ["A"], [4], [False]),
        sample("2", [None], [9], [True]),
        sample("3", [None], [2], [False]),
        sample("4", ["B"], [1], [False]),
    ]
    metrics = aggregate.choice_entry([run], [0])["metrics"]
    assert metrics["truncated_thinking"]["value"] == 0.25
    assert metrics["reached_limit"]["value"] == 0.25
    assert metrics["unparsed"]["value"] == 0.25
    assert metrics["accuracy"]["value"] == 0.25
    assert metrics["thinking_tokens_per_answer"]["value"] == 4


def test_runs_without_thinking_have_no_metric_of_it():
    estimates = generated_answers.estimates([[sample("1", ["A"]), sample("2", ["B"])]])
    assert set(estimates) == {"tokens_per_answer"}
