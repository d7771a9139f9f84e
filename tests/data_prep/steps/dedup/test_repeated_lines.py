from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.dedup.repeated_lines import LineDedupSettings
from tests.data_prep.documents import distinct, through


def texts_left(folder, texts, **settings):
    documents = [
        Document(text=text, id=str(number), metadata={}) for number, text in enumerate(texts)
    ]
    left, _ = through(
        build_step(LineDedupSettings(max_documents=3, **settings)),
        folder,
        ("a", documents[:2]),
        ("a", documents[2:]),
    )
    return [document.text for part in left for document in part]


def test_repeated_lines_are_removed_after_the_first(tmp_path):
    notice = "All rights of this notice are reserved."
    texts = [f"{distinct(n)}\n{notice}" for n in range(6)]
    assert texts_left(tmp_path, [*texts, notice]) == [texts[0], *(distinct(n) for n in range(1, 6))]


def test_repeated_sentences_are_removed_from_their_lines(tmp_path):
    notice = "This text does not replace your doctor."
    texts = [f"# Head\n\n{distinct(n)} ends. {notice} Case {n} is told." for n in range(6)]
    assert texts_left(tmp_path, texts, unit="sentence") == [
        texts[0],
        *(text.replace(f"{notice} ", "") for text in texts[1:]),
    ]
