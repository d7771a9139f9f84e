"""Numbers, dates and gestational ages in generated answers."""

import datetime
import time

import pytest

from evaluation.scoring import answer_values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.3", 12.3),
        ("-12", -12.0),
        ("−0.5", -0.5),  # the minus sign of Unicode
        ("1,234.5", 1234.5),
        ("1 234", None),
        ("1\u202f234", 1234.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.234,5", None),
        ("12,5", None),
        ("1,23,456", None),
        ("12.3 mL", None),
        ("12-15", None),
        ("nan", None),
        ("1e999", None),
        ("", None),
        ("1/2", 0.5),
        ("1/0", None),
        ("12/02/2000", datetime.date(2000, 12, 2)),
        ("2/3/2000", datetime.date(2000, 2, 3)),
        ("13/02/2000", None),
        ("(17 weeks, 4 days)", (17, 4)),
        ("('17 weeks', '4 days')", (17, 4)),
        ("(17, 4)", (17, 4)),
        ("٣", None),
    ],
)
def test_references(text, value):
    assert answer_values.parse(text) == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        # with a cue
        ("The answer is 12.3.", 12.3),
        ("Answer: approximately 12.3 mL/min", 12.3),
        ("**Answer:** **1,234.5 mg**", 1234.5),
        ("Final answer (mL/min/1.73 m²): 55", 55.0),
        ("5 + 7 = 12\nAnswer:\n\n12.5 mL", 12.5),
        ('{"step_by_step_thinking": "the answer is 3", "answer": "7.25 mEq/L"}', 7.25),
        ('{"answer": −4}', -4.0),
        (r"So \boxed{28.4 \text{ kg/m}^2}.", 28.4),
        (r"\boxed{\frac{3}{4}}", 0.75),
        ("The answer is 87 / 3.0625 = 28.4 kg/m2 (normal: 18.5-24.9)", 28.4),
        ("The answer is 28.4 kg/m^2, normal is 18.5 to 24.9.", 28.4),
        ("Answer: 3 out of 9", 3.0),
        ("Answer: 53%", 53.0),
        ("Answer: 55 mL/min/1.73 m²", 55.0),
        ("Answer: 55 mL/min per 1.73 m2", 55.0),
        ("Answer: 250 × 10^9/L", 250.0),
        ("Answer: 250 × 10⁹/L", 250.0),
        ("Answer: 2.5 × 10³", 2500.0),
        ("Answer: CHA2DS2-VASc = 4", 4.0),
        ("Answer: -> 5", 5.0),
        ("Answer: -1.5", -1.5),
        ("Answer: ~12", 12.0),
        ("The answer is 5. Wait, the answer is 6.", 6.0),
        ("Answer: 12-15", None),
        ("Answer: 12 – 15 mL", None),
        ("Answer: 12 mL to 15 mL", None),
        ("Answer: between 12 and 15", None),
        ("Answer: 12 ± 3", None),
        ("Answer: 12 or 15", None),
        ("Answer: 12 -15", None),
        ("Answer: < 5", None),
        ("Answer: at least 5", None),
        ("Answer: 1.234,5", None),
        ("Answer: 12,5", None),
        ("Answer: 12/02/2000", None),
        ("Answer: 140 - 53", None),
        ("12\nAnswer: unknown", None),
        ("Answer: 1e999", None),
        ("Answer:", None),
        # without one
        ("The result is 12.3 mL/min/1.73 m²", 12.3),
        ("140 - 53 = 87 mL", 87.0),
        ("First 5.\nThen 6 mL.\nThat is all.", 6.0),
        ("HbA1c", None),
        ("The score is 2.03; the Fibrosis-4 index", 2.03),
        ("The score is 3 (range 0-9)", None),
        ("", None),
        ("No number.", None),
    ],
)
def test_numbers(answer, value):
    assert answer_values.extract(answer, 1.0) == value


@pytest.mark.parametrize(
    ("answer", "like", "value"),
    [
        ("It is 12/02/2000.", datetime.date(2001, 1, 1), datetime.date(2000, 12, 2)),
        ("From 1/1/2000: the answer is 2/3/2000", datetime.date.min, datetime.date(2000, 2, 3)),
        ("Answer: 2000-12-02", datetime.date.min, None),
        ("Answer: 31/12/2000", datetime.date.min, None),
        ("The answer is 34 weeks and 3 days.", (0, 0), (34, 3)),
        ('{"answer": "(34, 3)"}', (0, 0), (34, 3)),
        ('{"answer": ["34 weeks", "3 days"]}', (0, 0), (34, 3)),
        ("Answer: 34.4 weeks", (0, 0), None),
    ],
)
def test_dates_and_gestational_ages(answer, like, value):
    assert answer_values.extract(answer, like) == value


@pytest.mark.parametrize("text", ["9", "1,", "answer is ", "{", "= 1 ", "1 to ", "x 10 ", "1/"])
def test_long_answers_take_no_long_time(text):
    started = time.monotonic()
    for like in (1.0, (0, 0), datetime.date.min):
        answer_values.extract(text * 50_000, like)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("140 - 53 = 87", None),
        ("Answer: 12", None),  # perhaps 12.5
        ("Answer: 12 mL/m", 12.0),
        ("Answer: 12.5\nThis is", 12.5),
        ("", None),
    ],
)
def test_answers_that_the_token_limit_ended(answer, value):
    assert answer_values.extract(answer, 1.0, is_finished=False) == value
