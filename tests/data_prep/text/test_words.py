"""Words as they are compared, whatever invisible characters they hold; the text is unchanged."""

import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.decontamination.items import ItemField
from data_prep.steps.decontamination.matches import find_matches
from data_prep.steps.decontamination.ngrams import build_index, normal_form
from data_prep.steps.dedup.exact import normalized
from data_prep.steps.filters.medical import KEYWORDS, matcher
from data_prep.steps.filters.quality import QualitySettings
from data_prep.text.words import Words, count_words, plain_words, searchable

PASSAGE = (
    "the farmer brings his daughter because a follow-up showed a barking cough since yesterday"
    " evening"
)
HIDDEN = [
    "\u00ad",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u200e",
    "\ufe0f",
    "\u00ad\u200b",
    "\u0336",
]


@pytest.mark.parametrize("mark", HIDDEN)
def test_invisible_characters(mark):
    hidden = PASSAGE.replace("aught", f"au{mark}ght").replace("cough", f"{mark}cou{mark}gh")
    assert searchable(hidden) == PASSAGE
    assert plain_words(hidden) == plain_words(PASSAGE)
    assert Words().word_tokenize(hidden) == Words().word_tokenize(PASSAGE)
    assert count_words(hidden) == count_words(PASSAGE)
    assert normalized(hidden) == normalized(PASSAGE)


@pytest.mark.parametrize(
    "end", ["-\n", "-\r\n", "- \n  ", "\u2010\n", "\u00ad\n", "\u00ad\u200b\n"]
)
def test_a_hyphen_at_the_end_of_a_line(end):
    assert plain_words(f"a barking cough since yester{end}day") == plain_words(
        "a barking cough since yesterday"
    )


def test_hyphens_that_break_no_word():
    for text in ("a list:\n- one\n- two", "Non-\nHodgkin", "from 5-\n10 mg", "a word -\nanother"):
        assert searchable(text) == text
    assert searchable("DAUGH-\nTER") == "DAUGHTER"


@pytest.mark.parametrize(
    "change",
    [
        *(lambda text, mark=mark: mark.join(text) for mark in HIDDEN),
        lambda text: text.replace("daughter", "daugh-\nter").replace("yesterday", "yester-\nday"),
        lambda text: text.replace("follow-up", "follow-\nup").replace("barking", "bar\u00adking"),
        lambda text: text.replace("daughter", "daugh\u2011\nter").replace("barking", "bar¬\nking"),
        lambda text: text.replace("daughter", "daugh- ter").replace("cough", "cou\u2010 gh"),
        lambda text: text.replace(" ", "\u200b"),
        lambda text: text.replace("his daughter", "his\u200bdaugh\u200bter\u200b"),
        lambda text: text.replace("cough", "\u0336".join("cough")),
        lambda text: text.replace(" ", "<br>", 3).replace("a bark", "a<BR />&nbsp;bark"),
        lambda text: text.replace("follow-up", "follow-\r\n up").replace("cough", "cou-\ngh"),
    ],
)
def test_a_passage_is_found(change):
    index = build_index([ItemField("f.jsonl", "1", "question", PASSAGE)], 13, 8, 10, ())
    text = normal_form(f"He read: {change(PASSAGE)}. Then he slept-\nwell.")
    words, spans = index.hasher()(text)
    (match,) = find_matches(index, words)
    assert match.ratio == 1
    covered = text[spans[match.span[0]][0] : spans[match.span[1] - 1][1]]
    assert covered.strip("".join(HIDDEN)) == change(PASSAGE).strip("".join(HIDDEN))


def test_a_hyphen_before_a_space_in_a_question():
    question = PASSAGE.replace("his daughter", "his pre- and postnatal daughter")
    index = build_index([ItemField("f.jsonl", "1", "question", question)], 13, 8, 10, ())
    for text in (question, question.replace("pre- and", "pre and")):
        (match,) = find_matches(index, index.hasher()(text)[0])
        assert match.ratio == 1


def test_medical_terms_are_found():
    found = matcher("en", KEYWORDS / "en.txt").find
    text = "The patient had hypertension, diabetes and pneumonia."
    assert (
        found(
            text.replace("tension", "ten\u00adsion")
            .replace("pneu", "pneu\u200b")
            .replace("dia", "dia-\n")
        )[0]
        == found(text)[0]
        > 2
    )


def test_the_stored_text_is_unchanged():
    """A zero-width non-joiner separates the parts of a Persian word, a joiner combines emoji."""
    text = (
        "می\u200cخواهم \U0001f469\u200d⚕\ufe0f and of the clinic that was seen for the pain with"
        " all the patients in the ward"
    )
    document = Document(text=text, id="1")
    build_step(QualitySettings()).filter(document)
    assert document.text == text
    assert plain_words("می\u200cخواهم") == plain_words("میخواهم")
