"""Orders of a question's options, and which questions have only one."""

import itertools
import random

import pytest

from evaluation.question_sets import option_order
from evaluation.question_sets.question import Question


def question(*texts, stem="Which one?", answer="A", id_="q"):
    options = dict(zip("ABCDEFGHIJ", texts, strict=False))
    return Question(id_, "", stem, options, answer)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 24, 99])
def test_orders_are_different_and_begin_with_the_original(count):
    permutations = option_order.permuted(question(*"wxyz"), count, seed=0)
    orders = [permutation.order for permutation in permutations]
    assert len(orders) == len(set(orders)) == min(count, 24)
    assert orders[0] == ("A", "B", "C", "D") and permutations[0].question == question(*"wxyz")
    assert all(sorted(order) == list("ABCD") for order in orders)


def test_as_many_orders_as_options_are_the_cyclic_shifts():
    orders = [item.order for item in option_order.permuted(question(*"wxyz"), 4, seed=7)]
    assert ["".join(order) for order in orders] == ["ABCD", "BCDA", "CDAB", "DABC"]
    assert all(sorted(position) == list("ABCD") for position in zip(*orders, strict=True))


def test_orders_depend_on_seed_and_id_alone():
    def orders(seed, id_):
        return [item.order for item in option_order.permuted(question(*"vwxyz", id_=id_), 4, seed)]

    assert orders(0, "q") == orders(0, "q")
    assert orders(0, "q") != orders(1, "q") and orders(0, "q") != orders(0, "r")
    # these never change: samples of interrupted runs must fit
    assert ["".join(order) for order in orders(0, "q")] == FROZEN


FROZEN = ["ABCDE", "BAECD", "BCDEA", "DCBEA"]


def test_labels_are_mapped_back():
    source = random.Random(0)
    for _ in range(200):
        texts = [f"text {number}" for number in range(source.randint(2, 8))]
        original = question(*texts)
        answers = source.sample(list(original.options), source.randint(1, len(texts)))
        original = question(*texts, answer=",".join(sorted(answers)))
        for item in option_order.permuted(original, source.randint(2, 6), seed=0):
            shown = item.question
            assert list(shown.options) == list(original.options)
            right = {original.options[label] for label in original.answers}
            assert {shown.options[label] for label in shown.answers} == right
            assert item.original_labels(shown.answer) == original.answer
            for label, text in shown.options.items():
                assert original.options[item.original_label(label)] == text
            for position, label in enumerate(item.order, start=1):
                assert item.position(label) == position
    assert item.original_labels(None) is None and item.position(None) is None


@pytest.mark.parametrize(
    "text",
    [
        *("All of the above", "None of the above", "None of above", "All the above"),
        *("Both A and B", "A and B", "A, B and C", "Both (a) and (b)", "A & C", "a and c only"),
        *("All of these", "none of these", "None", "Neither A nor B", "Either A or C"),
        *("Both of them", "All are true", "Two of the above", "Options A and C are correct"),
        *("Toutes les réponses sont exactes", "Aucune de ces réponses n’est exacte", "A et B"),
        *("Todas las anteriores", "Ninguna es correcta", "1 y 3 son correctas", "A y B"),
        *("Las respuestas 1 y 2 son ciertas", "Todas as alternativas anteriores", "A e B"),
        *("Tutte le precedenti", "Alle genannten", "Beide Antworten sind richtig", "A und B"),
        *("以上都是", "以上都不是", "A+B", "A和B", "都对", "上記のすべて", "위의 모두"),
        *("Все перечисленное", "Ничего из перечисленного", "A и B", "كل ما سبق", "Answer B"),
    ],
)
def test_options_that_refer_to_others_are_found(text):
    assert option_order.refers_to_options(question("x", "y", "z", text))


@pytest.mark.parametrize(
    "text",
    [
        *("Vitamin A and D", "Hepatitis A and B", "Both kidneys", "Both", "None detected"),
        *("1 and 2 years", "1/2", "1,2", "A/B", "AB", "A", "I and III", "Factors II and VII"),
        *("All patients with fever", "All of the vertebrae of the neck", "Neither", "Type B"),
        *("Toutes les 6 heures", "Todas las semanas", "Alle 2 Wochen", "beide Lungen"),
        *("血壓140以上", "以上肢", "some of the time", "1, 25-dihydroxy vitamin D"),
    ],
)
def test_other_options_are_not(text):
    assert not option_order.refers_to_options(question("x", "y", "z", text))


def test_a_question_that_names_an_option_is_found():
    assert option_order.refers_to_options(question("x", "y", stem="Why is option B wrong?"))
    assert not option_order.refers_to_options(question("x", "y", stem="Why is group B rarer?"))


def test_hostile_texts_take_no_time():
    parts = ("A and ", "both ", "(", "all of the ", "a e ", "e", "A, ", "todas ", "option ", "ae")
    for text in itertools.chain.from_iterable(
        ((part * 200)[:length], (part * 200)[:length] + "!")
        for part in parts
        for length in (190, 2000)
    ):
        option_order.refers_to_options(question("x", text))
