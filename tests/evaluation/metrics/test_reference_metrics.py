"""Exact match and token F1, against lm-evaluation-harness and values of SQuAD's script."""

import itertools

import pytest

from evaluation.metrics import reference_metrics

ANSWERS = ["Paris", "paris.", "the Paris", "12 mg", "12mg", "Pa-ris!", "", " Paris", "$5,000"]


@pytest.mark.parametrize("case", [False, True])
@pytest.mark.parametrize("punctuation", [False, True])
@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("regexes", [(), (",", r"\\$"), ("(?s).*#### ", " mg$")])
def test_exact_match_is_the_harness_metric(case, punctuation, numbers, regexes):
    metrics = pytest.importorskip("lm_eval.api.metrics")
    for answer, reference in itertools.product(ANSWERS, ANSWERS):
        expected = metrics.exact_match_hf_evaluate(
            predictions=[answer],
            references=[reference],
            regexes_to_ignore=list(regexes) or None,
            ignore_case=case,
            ignore_punctuation=punctuation,
            ignore_numbers=numbers,
        )["exact_match"]
        found = reference_metrics.exact_match(
            answer,
            reference,
            ignore_case=case,
            ignore_punctuation=punctuation,
            ignore_numbers=numbers,
            regexes_to_ignore=regexes,
        )
        assert found == expected, (answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        # values of the script of SQuAD 1.1
        ("The Norman conquest", "norman Conquest.", 1.0),
        ("in the 10th and 11th centuries", "10th and 11th centuries", 8 / 9),
        ("a beta-blocker", "beta blocker", 0.0),  # punctuation is removed, not replaced
        ("aspirin aspirin heparin", "aspirin", 0.5),
        ("warfarin", "aspirin", 0.0),
        # of 2.0
        ("", "", 1.0),
        ("the", "", 1.0),
        ("aspirin", "", 0.0),
    ],
)
def test_token_f1(answer, reference, f1):
    assert reference_metrics.token_f1(answer, reference) == pytest.approx(f1)
