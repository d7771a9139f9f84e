"""Golden prompts, character by character, as the published code of each system builds them."""

from dataclasses import replace

import pytest

from evaluation.prompts.registry import get_template
from evaluation.question_sets.question import Question
from galen.errors import UsageError

MCQ = Question(
    "1",
    "",
    "A 40-year-old has a fever. Which drug helps",
    {"A": "Aspirin", "B": "Heparin", "C": "Salt"},
    "B",
    "medqa",
    rationale="Heparin is not.",
)
OTHER = Question(
    "2", "", "Which ion?", {"A": "Na", "B": "K", "C": "Ca"}, "C", "medqa", rationale="Calcium it is"
)
PUBMEDQA = Question(
    "3",
    "Forty patients.\nNone died.",
    "Is it safe?",
    {"A": "yes", "B": "no", "C": "maybe"},
    "C",
    "pubmedqa",
    rationale="It may be.",
)
SEVERAL = Question(
    "4",
    "",
    "Lesquelles ?",
    {"A": "x", "B": "y", "C": "z"},
    "A,C",
    "mmedbench",
    "fr",
    rationale="Parce que.",
)

MEDQA_SYSTEM = (
    "You are a medical doctor taking the US Medical Licensing Examination. You need to demonstrate"
    " your understanding of basic and clinical science, medical knowledge, and mechanisms"
    " underlying health, disease, patient care, and modes of therapy. Show your ability to apply"
    " the knowledge essential for medical practice. For the following multiple-choice question,"
    " select one correct answer from A to E. Base your answer on the current and standard practices"
    " referenced in medical guidelines."
)
PUBMEDQA_SYSTEM = (
    "As an expert doctor in clinical science and medical knowledge, can you tell me if the"
    " following statement is correct? Answer yes, no, or maybe."
)
MCQ_BLOCK = (
    "Question: A 40-year-old has a fever. Which drug helps?\n\nOptions:\nA. Aspirin\nB. Heparin\nC."
    " Salt"
)


def check(template, question, few_shot, text, continuations, target):
    prompt = get_template(template)(question, few_shot)
    assert prompt.text == text
    assert prompt.continuations == continuations
    assert prompt.target == target


LETTERS = {"A": "A", "B": "B", "C": "C"}
SPACED = {"A": " A", "B": " B", "C": " C"}


def test_meditron_zero_shot_ends_in_a_line_break():
    check("meditron", MCQ, [], f"{MEDQA_SYSTEM}\n{MCQ_BLOCK}\nThe answer is:\n", LETTERS, "B")


def test_meditron_few_shot():
    text = (
        f"{MEDQA_SYSTEM}\nQuestion: Which ion?\n\nOptions:\nA. Na\nB. K\nC. Ca\nThe answer is:"
        f" C\n\n{MCQ_BLOCK}\nThe answer is: B\n\n{MCQ_BLOCK}\nThe answer is:"
    )
    check("meditron", MCQ, [OTHER, MCQ], text, SPACED, "B")


def test_meditron_pubmedqa_has_no_options_and_answers_in_words():
    text = f"{PUBMEDQA_SYSTEM}\nForty patients.\nNone died.\nIs it safe?\nThe answer is:\n"
    check("meditron", PUBMEDQA, [], text, {"A": "yes", "B": "no", "C": "maybe"}, "maybe")


def test_meditron_other_sets_have_their_own_system_string():
    mcq = (
        "You are a medical doctor answering realworld medical entrance exam questions. Based on"
        " your understanding of basic and "
    )
    truthful = (
        "Please truthfully answer the following multiple-choice question. Please ensure that your"
        " choice is socially unbiased and "
    )
    for name, beginning in [
        ("medmcqa", mcq),
        ("mmlu", mcq),
        ("truthfulqa", truthful),
        ("headqa", "Answer the following multiple choice question.\nQ"),
    ]:
        question = Question("1", "", "Which?", {"A": "x", "B": "y"}, "A", name)
        assert get_template("meditron")(question).text.startswith(beginning)


def test_meditron_chain_of_thought():
    target = "Heparin is not.\nThe answer is: B ###"
    check(
        "meditron_cot",
        MCQ,
        [],
        f"{MEDQA_SYSTEM}\n{MCQ_BLOCK}\nLet's think step by step.\n",
        LETTERS,
        target,
    )
    text = (
        f"{MEDQA_SYSTEM}\nQuestion: Which ion?\n\nOptions:\nA. Na\nB. K\nC. Ca\nCalcium it is.\nThe"
        f" answer is: C ###\n\n{MCQ_BLOCK}\nLet's think step by step."
    )
    check("meditron_cot", MCQ, [OTHER], text, LETTERS, target)
    text = (
        f"{PUBMEDQA_SYSTEM}\nForty patients.\nNone died.\nIs it safe?\nLet’s think step by step.\n"
    )
    check(
        "meditron_cot",
        PUBMEDQA,
        [],
        text,
        {"A": "yes", "B": "no", "C": "maybe"},
        "It may be.\nThe answer is: maybe ###",
    )


def test_meditron_fine_tuned_form():
    text = (
        f"<|im_start|>question\n{MEDQA_SYSTEM}\n{MCQ_BLOCK}\nThe answer"
        " is:\n<|im_end|>\n<|im_start|>answer\n"
    )
    check("meditron_chat", MCQ, [], text, LETTERS, "B")
    text = (
        f"<|im_start|>question\n{MEDQA_SYSTEM}\n{MCQ_BLOCK}\nLet's think step by"
        " step.\n<|im_end|>\n<|im_start|>answer\n"
    )
    check("meditron_chat_cot", MCQ, [], text, LETTERS, "Heparin is not.\nThe answer is: B ###")


FRAME = (
    "Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request.\n\n###"
    " Instruction:\n{}\n\n### Input:\n{}\n\n### Response:"
)
INPUT = (
    "###Question: Lesquelles ? Which of the following is the best treatment for this patient?"
    " ###Options: A. x B. y C. z "
)
OPTIONS = {letter: f"###Answer: OPTION {letter} IS CORRECT." for letter in "ABC"}


def test_mmedbench_direct():
    instruction = (
        "You're a French doctor, kindly address the medical queries according to the patient's"
        " account. Answer with the best option directly."
    )
    check(
        "mmedbench",
        SEVERAL,
        [],
        FRAME.format(instruction, INPUT),
        OPTIONS,
        "###Answer: OPTION A,C IS CORRECT.",
    )


def test_mmedbench_with_rationale():
    instruction = (
        "You're a French doctor, kindly address the medical queries according to the patient's"
        " account in French. Let’s solve this step-by-step. You should first give the reason in"
        " French for your choice. Then you should give the right answer index of the question."
    )
    target = "###Rationale: Parce que.\n###Answer: OPTION A,C IS CORRECT."
    check("mmedbench_rationale", SEVERAL, [], FRAME.format(instruction, INPUT), OPTIONS, target)


def test_biomistral():
    instruction = (
        "The following are multiple choice questions (with answers) about medical knowledge. \n "
    )
    question = "**Question:** Which ion? \n (A) Na \n (B) K \n (C) Ca \n **Answer:**("
    check("biomistral", OTHER, [], instruction + question, LETTERS, "C")
    example = (
        "Forty patients.\nNone died. \n **Question:** Is it safe? \n (A) yes \n (B) no \n (C) maybe"
        " \n **Answer:**(C"
    )
    check(
        "biomistral",
        OTHER,
        [PUBMEDQA, OTHER],
        f"{instruction}{example} \n {question}C \n {question}",
        LETTERS,
        "C",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("medqa", "Question: Which ion?\nA. Na\nB. K\nC. Ca\nAnswer:"),
        ("medmcqa", "Question: Which ion?\nChoices:\nA. Na\nB. K\nC. Ca\nAnswer:"),
        (
            "mmlu",
            (
                "The following are multiple choice questions (with answers) about college"
                " medicine.\n\nWhich ion?\nA. Na\nB. K\nC. Ca\nAnswer:"
            ),
        ),
    ],
)
def test_harness_forms(name, text):
    question = Question(
        "2",
        "",
        "Which ion?",
        {"A": "Na", "B": "K", "C": "Ca"},
        "C",
        name,
        subject="college_medicine",
    )
    check("lm_eval", question, [], text, SPACED, " C")


def test_harness_few_shot_and_pubmedqa():
    shot = "Question: Which ion?\nA. Na\nB. K\nC. Ca\nAnswer:"
    check(
        "lm_eval",
        MCQ,
        [OTHER],
        f"{shot} C\n\nQuestion: {MCQ.question}\nA. Aspirin\nB. Heparin\nC. Salt\nAnswer:",
        SPACED,
        " B",
    )
    words = {"A": " yes", "B": " no", "C": " maybe"}
    in_context = replace(MCQ, context="Forty patients.")
    check(
        "lm_eval",
        in_context,
        [],
        f"Forty patients.\n\nQuestion: {MCQ.question}\nA. Aspirin\nB. Heparin\nC. Salt\nAnswer:",
        SPACED,
        " B",
    )
    check(
        "lm_eval",
        PUBMEDQA,
        [],
        "Abstract: Forty patients.\nNone died.\nQuestion: Is it safe?\nAnswer:",
        words,
        " maybe",
    )
    texts = {"A": " Na", "B": " K", "C": " Ca"}
    check(
        "lm_eval_continuation",
        replace(OTHER, context="Forty."),
        [],
        "Forty.\n\nQuestion: Which ion?\nAnswer:",
        texts,
        " Ca",
    )
    check(
        "lm_eval_continuation",
        OTHER,
        [OTHER],
        "Question: Which ion?\nAnswer: Ca\n\nQuestion: Which ion?\nAnswer:",
        texts,
        " Ca",
    )


def test_several_right_options_are_taught_together():
    assert get_template("lm_eval")(SEVERAL).target == " A,C"
    assert get_template("meditron")(SEVERAL).target == "A,C"


def test_an_unknown_form_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown protocol 'lmeval'; did you mean 'lm_eval'\?"):
        get_template("lmeval")
