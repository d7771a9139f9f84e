import pytest

from evaluation import prompts
from evaluation.question import Question
from galen.errors import UsageError

QUESTION = Question(
    id="1",
    context="Aspirin in 40 patients.",
    question="What was given?",
    options={"A": "Aspirin", "B": "Heparin", "C": "Nothing", "D": "Salt"},
    answer="A",
)


def test_lm_eval_form_is_the_harness_form_character_by_character():
    """lm-evaluation-harness 0.4.13, tasks/medqa/preprocess_medqa.py and tasks/mmlu/default; choices with its `target_delimiter` " "."""
    question = Question(id="1", context="", question=QUESTION.question, options=QUESTION.options, answer="A")
    prompt = prompts.form("lm_eval")(question)
    assert prompt.text == "Question: What was given?\nA. Aspirin\nB. Heparin\nC. Nothing\nD. Salt\nAnswer:"
    assert prompt.continuations == {"A": " A", "B": " B", "C": " C", "D": " D"}


def test_lm_eval_form_with_context():
    assert prompts.form("lm_eval")(QUESTION).text == (
        "Aspirin in 40 patients.\n\nQuestion: What was given?\nA. Aspirin\nB. Heparin\nC. Nothing\nD. Salt\nAnswer:"
    )


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown protocol 'lmeval'; did you mean 'lm_eval'\?"):
        prompts.form("lmeval")


def test_lm_eval_continuation_form_is_the_harness_form_character_by_character():
    """lm-evaluation-harness 0.4.13, tasks/mmlu/continuation/_continuation_template_yaml."""
    prompt = prompts.form("lm_eval_continuation")(QUESTION)
    assert prompt.text == "Aspirin in 40 patients.\n\nQuestion: What was given?\nAnswer:"
    assert prompt.continuations == {"A": " Aspirin", "B": " Heparin", "C": " Nothing", "D": " Salt"}
