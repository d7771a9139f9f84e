import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evaluation import agreement
from evaluation.metrics import calibration, intervals, significance
from galen.errors import DataError


def test_exact_mcnemar_by_hand():
    """Of 10 discordant samples the second model gets 9: two-sided p = 2 (1 + 10) / 2^10."""
    first, second = [0] * 9 + [1] + [1] * 50, [1] * 9 + [0] + [1] * 50
    assert significance.paired_p_value(first, second) == pytest.approx(22 / 1024)
    assert significance.paired_p_value(first, first) == 1.0
    assert significance.paired_p_value([0, 1], [1, 0]) == 1.0


def test_permutation_test_of_means_over_runs():
    source = np.random.default_rng(0)
    first = source.integers(0, 4, 200) / 3
    assert significance.paired_p_value(first, first + source.choice([-1 / 3, 1 / 3], 200)) > 0.01
    assert significance.paired_p_value(first, np.minimum(first + 0.2, 1)) < 0.001


def test_holm_by_hand():
    """Holm's steps for 0.01, 0.04, 0.03 of three tests.

    3 × 0.01, 2 × 0.03, then not below the one before.
    """
    assert significance.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert significance.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_kendall_tau_is_scipys():
    source = np.random.default_rng(1)
    first, second = source.integers(0, 6, 50), source.integers(0, 6, 50)
    assert significance.kendall_tau(first, second) == pytest.approx(
        stats.kendalltau(first, second).statistic
    )
    assert significance.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert math.isnan(significance.kendall_tau([1, 1, 1], [1, 2, 3]))


def test_the_metric_that_follows_the_judges_is_found(tmp_path, capsys):
    source = np.random.default_rng(2)
    human = source.integers(1, 6, 60)
    lines, rows = [], ["id,question,judge1,judge2"]
    for n, rating in enumerate(human):
        near, far = float(rating + source.normal(0, 0.5)), float(source.normal())
        lines.append(f'{{"id": "{n}", "metrics": {{"good": {near}, "bad": {far}}}}}')
        rows.append(f'{n},"a, b",{rating},{"" if n % 2 else rating}')
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    (tmp_path / "sheet.csv").write_text("\n".join(rows))
    arguments = [
        "--scores",
        str(tmp_path / "scores.jsonl"),
        "--ratings",
        str(tmp_path / "sheet.csv"),
    ]
    agreement.main(arguments)
    output = capsys.readouterr().out.splitlines()
    assert (
        output[0] == "60 samples, 2 judges"
        and output[2].startswith("good")
        and output[2].endswith("100.0%")
    )
    assert output[4] == "judge1 with judge2: tau 1.000 on 30 samples"
    (tmp_path / "sheet.csv").write_text("id,judge1\n0,good\n")
    with pytest.raises(
        DataError, match=r"sheet\.csv, line 2: column 'judge1' must be a number, not 'good'"
    ):
        agreement.main(arguments)


def test_a_metric_that_is_equal_for_all_items_is_never_the_best(tmp_path, capsys):
    scores, ratings = tmp_path / "scores.jsonl", tmp_path / "sheet.csv"
    scores.write_text(
        "".join(
            f'{{"id": "{n}", "metrics": {{"bleu1": 0, "against": {-n}}}}}\n' for n in range(1, 6)
        )
    )
    arguments = ["--scores", str(scores), "--ratings", str(ratings)]
    ratings.write_text("id,judge1,judge2\n" + "".join(f"{n},{n},3\n" for n in range(1, 6)))
    agreement.main(arguments)
    output = capsys.readouterr().out.splitlines()
    assert output[2].split() == ["against", "-1.000", "-1.000", "to", "-1.000", "99.8%"]
    assert output[3].split(maxsplit=1) == ["bleu1", "–  undefined: all samples have the same value"]
    assert output[4] == "judge1 with judge2: tau undefined on 5 samples"
    ratings.write_text("id,judge1\n" + "".join(f"{n},3\n" for n in range(1, 6)))
    with pytest.raises(DataError, match=r"sheet\.csv: the judges rate all 5 samples alike"):
        agreement.main(arguments)


def test_calibration_by_hand():
    def item(p, answer):
        # a constant changes nothing
        return {"answer": answer, "logprobs": {"A": math.log(p) - 3, "B": math.log(1 - p) - 3}}

    found = calibration.calibration(
        [
            item(0.9, "A"),
            item(0.9, "B"),
            item(0.4, "B"),
            {"answer": "A,B", "logprobs": {"A": 0, "B": 0}},
        ]
    )
    # bins: 0.6 (one item, right), 0.9 (two samples, one right)
    assert found["ece"] == pytest.approx((1 * 0.4 + 2 * 0.4) / 3)
    assert found["brier"] == pytest.approx((2 * 0.1**2 + 2 * 0.9**2 + 2 * 0.4**2) / 3)
    assert [(entry["samples"], entry["accuracy"]) for entry in found["bins"]] == [
        (1, 1.0),
        (2, 0.5),
    ]


def test_calibration_error_of_biomistral_has_five_bins_of_raw_probabilities():
    """Against its definition written as a loop over bins that include their upper bound."""
    rng = np.random.default_rng(7)
    samples = []
    for number in range(200):
        raw = rng.dirichlet(np.ones(6))[:4]  # two parts for the rest of the vocabulary
        if number < 5:
            raw = np.array([0.6, 0.2, 0.1, 0.1])
        samples.append(
            {
                "answer": "ABCD"[rng.integers(4)],
                "logprobs": dict(zip("ABCD", np.log(raw).tolist(), strict=True)),
            }
        )
    raw = np.array([[math.exp(value) for value in s["logprobs"].values()] for s in samples])
    right = raw.argmax(axis=1) == np.array(["ABCD".index(s["answer"]) for s in samples])
    expected = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        inside = (raw.max(axis=1) > low) & (raw.max(axis=1) <= high)
        if inside.any():
            gap = raw.max(axis=1)[inside].mean() - right[inside].mean()
            expected += abs(gap) * inside.mean()
    found = calibration.calibration(samples)
    assert found["ece_biomistral"] == pytest.approx(expected, abs=1e-12)
    assert abs(found["ece"] - expected) > 0.01


def test_macro_mean_weighs_groups_alike():
    values = [1.0] * 90 + [0.0] * 10
    estimate = intervals.macro_mean(values, [range(90), range(90, 100)])
    assert (estimate.value, intervals.mean(values).value) == (0.5, 0.9)
    assert intervals.macro_mean([0, 1, 0, 1], [[0, 1], [2, 3]]).low < 0.5
