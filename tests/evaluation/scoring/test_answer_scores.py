"""Answers scored against references by the metric of a task."""

import pytest

from evaluation.question_sets.reference_reader import ReferenceQuestion
from evaluation.scoring import answer_scores
from evaluation.tasks import task
from galen.errors import DataError, UsageError

HEAD = "kind: generation\nfile: a.jsonl\nfields: {question: q, answer: a}\n"


@pytest.fixture
def score(tmp_path):
    """Return the extracted answer and the score of an answer to a question."""

    def score(keys, answer, *references, limits=None):
        path = tmp_path / "mine.yaml"
        path.write_text(HEAD + keys + "\n")
        _, specification = task.load(str(path))
        question = ReferenceQuestion(
            "1", "", "?", {}, references[0], references=references, limits=limits
        )
        answer_scores.check(specification, question)
        result = answer_scores.score(specification, question, answer)
        return result.extracted, result.score

    return score


def test_exact_match(score):
    assert score("metric: exact_match", " Paris\n", "Paris") == ("Paris", 1)
    assert score("metric: exact_match", "paris", "Paris") == ("paris", 0)
    assert score("metric: exact_match\nignore_case: true", "paris", "Rome", "Paris")[1] == 1
    keys = "metric: exact_match\nregexes_to_ignore: [\"the \", ',']"
    assert score(keys, "the 1,000", "1000")[1] == 1
    assert score("metric: exact_match", " ", "Paris") == (None, 0)


def test_the_last_match_of_a_pattern_is_the_answer(score):
    keys = "metric: exact_match\nregex_pattern: '#### (\\S+)'"
    assert score(keys, "#### 4 no\n#### 5 yes", "5") == ("5", 1)
    assert score(keys, "5", "5") == (None, 0)
    keys = "metric: numeric\nregex_pattern: 'Respuesta: .*'"
    assert score(keys, "Answer: 3\nRespuesta: 5 mL", "5") == ("5", 1)


def test_f1_is_that_of_the_best_reference(score):
    assert score("metric: f1", "low dose aspirin", "heparin", "aspirin")[1] == 0.5


@pytest.mark.parametrize(
    ("tolerance", "right", "wrong"),
    [
        ("", ["10", "10.0"], ["10.1", "9.999"]),
        ("tolerance: {absolute: 0.5}", ["9.5", "10.5"], ["9.49", "10.51"]),
        ("tolerance: {relative: 0.05}", ["9.5", "10.5"], ["9.49", "10.51"]),
        ("tolerance: {absolute: 1, relative: 0.05}", ["9", "11"], ["8.99"]),
    ],
)
def test_tolerance(score, tolerance, right, wrong):
    for answer in right:
        assert score(f"metric: numeric\n{tolerance}", f"Answer: {answer} mg", "10")[1] == 1
    for answer in wrong:
        assert score(f"metric: numeric\n{tolerance}", f"Answer: {answer} mg", "10")[1] == 0
    assert score(f"metric: numeric\n{tolerance}", "Answer: 10-11", "10") == (None, 0)


def test_rounding_at_the_tolerance(score):
    assert score("metric: numeric\ntolerance: {absolute: 0.1}", "0.3", "0.2")[1] == 1
    assert score("metric: numeric\ntolerance: {relative: 0.1}", "-0.33", "-0.3")[1] == 1


def test_limits_of_a_negative_number_are_in_the_other_order(score):
    limits = ("-1.995", "-2.205")
    assert score("metric: numeric", "Answer: −2.1 L", "-2.1", limits=limits) == ("-2.1", 1)
    assert score("metric: numeric", "Answer: 2.1 L", "-2.1", limits=limits) == ("2.1", 0)


def test_dates_and_gestational_ages(score):
    limits = ("12/02/2000", "12/02/2000")
    assert score("metric: numeric", "12/2/2000", "12/02/2000", limits=limits)[1] == 1
    assert score("metric: numeric", "12/3/2000", "12/02/2000", limits=limits) == ("12/03/2000", 0)
    answer = "34 weeks and 3 days"
    assert score("metric: numeric", answer, "(34 weeks, 3 days)") == ("34 weeks, 3 days", 1)


def test_a_reference_that_is_no_number(score):
    with pytest.raises(
        DataError, match=r"mine\.yaml: key 'fields\.answer': question '1': .* '12 mL' is no"
    ):
        score("metric: numeric", "12", "12 mL")
    with pytest.raises(DataError, match="values of different types"):
        score("metric: numeric", "12", "12", "12/02/2000")
    with pytest.raises(DataError, match=r"limits .* are no numbers"):
        score("metric: numeric", "12", "12", limits=("low", "13"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("metric: bleu", "metric"),
        ("metric: f1\ntolerance: {absolute: 1}", "need metric numeric"),
        ("metric: numeric\ntolerance: {absolute: -1}", "absolute"),
        ("metric: numeric\nignore_case: true", "'ignore_case' needs metric exact_match"),
        ("metric: exact_match\nregex_pattern: '('", "not a valid regular expression"),
        ("metric: exact_match\nstop: ['']", "'stop' must not hold an empty text"),
        ("metric: exact_match\nnum_fewshot: 2", "needs the key 'fewshot_source'"),
        ("metric: exact_match\ntest_split: a", "needs the key 'fields.split'"),
    ],
)
def test_wrong_keys(score, keys, message):
    with pytest.raises(UsageError, match=message):
        score(keys, "x", "x")
