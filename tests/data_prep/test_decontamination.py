import json
import random

import numpy as np
import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.decontamination.items import ItemField, read_items
from data_prep.steps.decontamination.matches import find_matches
from data_prep.steps.decontamination.ngrams import (
    Index,
    WordHasher,
    build_index,
    normal_form,
    windows,
)
from data_prep.steps.decontamination.step import DecontaminationSettings
from galen.errors import DataError

WORDS = [f"word{n}" for n in range(500)]
QUESTION = " ".join(WORDS[:40])


def index_of(*texts, n_grams=13, max_item_frequency=10, phrases=()):
    fields = [
        ItemField("f.jsonl", str(number), "question", text) for number, text in enumerate(texts)
    ]
    return build_index(fields, n_grams, 8, max_item_frequency, phrases)


def matches(index, text):
    return find_matches(index, WordHasher()(normal_form(text))[0])


@pytest.mark.parametrize("words", [8, 9, 12, 13, 14, 40])
def test_items_of_every_length_are_found(words):
    """Items of any length from the minimum on are found.

    Also where item and document have exactly as many words as a sequence.
    """
    text = " ".join(WORDS[:words])
    actual = matches(index_of(text), text)
    assert [(match.field, match.ratio, match.span) for match in actual] == [(0, 1.0, (0, words))]
    assert not matches(index_of(text), " ".join(WORDS[1 : min(words, 13)]))


def test_window_hashes_depend_on_their_words_only():
    words = WordHasher()("a b c d a b c")[0]
    assert len(windows(words, 7)) == 1
    assert len(windows(words, 8)) == 0
    triples = windows(words, 3)
    assert triples[0] == triples[4]
    assert len(np.unique(triples)) == 4


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text.replace(" ", "\n- "),
        lambda text: text.replace(" ", "，"),
        lambda text: " ".join(f"“{word}”," for word in text.split()),
        lambda text: text.replace("o", "ó"),
        lambda text: text.replace("o", "o\u0640\ufff9"),
        lambda text: f"Before it. {text} After it.",
    ],
)
def test_formatting_does_not_hide_a_match(change):
    assert matches(index_of(QUESTION), change(QUESTION))[0].ratio == 1


def test_ratio_and_span_of_a_part():
    (actual,) = matches(index_of(QUESTION), "elsewhere " + " ".join(WORDS[:20]) + " other text")
    assert (actual.ratio, actual.span) == (0.5, (1, 21))


def test_chinese_counts_characters():
    text = "患者因持续性胸痛伴呼吸困难三小时入院既往有高血压病史十年"
    assert matches(index_of(text), f"病例：{text[:10]}，{text[10:]}。")[0].ratio == 1
    assert not matches(index_of(text), text[:15])


def test_common_sequences_do_not_count():
    shared = " ".join(WORDS[100:115])
    texts = [f"{' '.join(WORDS[20 * n : 20 * n + 14])} {shared}" for n in range(4)]
    assert matches(index_of(*texts), shared)
    assert not matches(index_of(*texts, max_item_frequency=4), shared)
    assert not matches(index_of(QUESTION, phrases=[" ".join(WORDS[3:14])]), " ".join(WORDS[2:15]))
    assert matches(index_of(QUESTION, phrases=[" ".join(WORDS[3:14])]), QUESTION)[0].ratio > 0.6


def test_index_on_disk(tmp_path):
    index = index_of(QUESTION, " ".join(WORDS[50:60]))
    index.save(tmp_path / "index.npz")
    again = Index.load(tmp_path / "index.npz")
    assert again.fields == index.fields
    assert list(again.grams) == [10, 13]
    assert [(m.field, m.ratio) for m in matches(again, QUESTION)] == [(0, 1.0)]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    records = [
        {"id": "q1", "question": QUESTION, "options": {"A": "yes", "B": " ".join(WORDS[60:80])}},
        {"question": " ".join(WORDS[90:99])},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_items(questions, tmp_path):
    items = [
        (item.item, item.field) for item in read_items([str(questions)], ["question", "options"])
    ]
    assert items == [
        ("q1", "question"),
        ("q1", "options.A"),
        ("q1", "options.B"),
        ("2", "question"),
    ]
    with pytest.raises(DataError, match="has no text in any of the fields context"):
        list(read_items([str(questions)], ["context"]))
    questions.write_text("{broken\n")
    with pytest.raises(DataError, match="line 1: not JSON"):
        list(read_items([str(questions)], ["question"]))
    with pytest.raises(DataError, match=r"key eval_datasets: .*nowhere does not exist"):
        list(read_items([str(tmp_path / "nowhere")], ["question"]))


def step(questions, *fields, **settings):
    return build_step(
        DecontaminationSettings(eval_datasets=[str(questions)], fields=fields, **settings)
    )


def run(step, folder, *texts):
    step.prepare(folder)
    remaining = list(
        step.run(
            iter(
                Document(text=text, id=str(number), metadata={})
                for number, text in enumerate(texts)
            ),
            0,
            1,
        )
    )
    return remaining, step.finish(folder, 1)


def test_drop_redact_and_report(questions, tmp_path):
    dirty = f"First sentence. {QUESTION.title()}. Last sentence."
    texts = ["Nothing of the kind.", dirty, "Says " + " ".join(WORDS[60:75])]
    remaining, actual = run(step(questions, "question", "options"), tmp_path / "drop", *texts)
    assert [document.id for document in remaining] == ["0"]
    assert actual == {
        "documents": 2,
        "action": "drop",
        "files": {"questions.jsonl": {"items": 2, "found": 1}},
    }
    (item,) = [
        json.loads(line) for line in (tmp_path / "drop/publish/contamination_items.jsonl").open()
    ]
    assert item["id"] == "q1"
    assert item["documents"] == [{"id": "1", "ratio": 1.0}, {"id": "2", "ratio": 0.75}]
    first = json.loads((tmp_path / "drop/publish/contamination.jsonl").open().readline())
    assert (first["document"], first["span_words"], first["span"]) == ("1", 40, QUESTION.title())

    remaining, _ = run(step(questions, "question", action="redact"), tmp_path / "cut", *texts)
    assert [document.text for document in remaining] == [
        texts[0],
        "First sentence. . Last sentence.",
        texts[2],
    ]
    remaining, _ = run(step(questions, "question", action="report"), tmp_path / "report", *texts)
    assert [document.text for document in remaining] == texts
    remaining, _ = run(
        step(questions, "question", "options", min_ratio=0.8), tmp_path / "ratio", *texts
    )
    assert [document.id for document in remaining] == ["0", "2"]


def test_separators_of_lines_in_a_text(questions, tmp_path):
    text = QUESTION.replace(" ", "\u2028", 1).replace(" ", "\x85", 1)
    _, actual = run(step(questions, "question", action="report"), tmp_path / "report", text)
    assert actual["documents"] == 1
    assert json.loads((tmp_path / "report/publish/contamination.jsonl").read_text())["span"] == text


def test_no_false_match_between_shuffled_texts():
    """Same words in another order: nothing in common but words."""
    shuffled = WORDS[:40]
    random.Random(1).shuffle(shuffled)
    assert not matches(index_of(QUESTION), " ".join(shuffled))
