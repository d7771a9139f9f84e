import numpy as np

from data_prep.corpus_step import KEEP
from data_prep.dedup.duplicate import ROW, SAME_ID, SAME_TEXT, find_duplicates, normalised


def test_last_of_an_id_and_first_of_a_text_stay():
    rows = np.array([(1, 10), (2, 20), (1, 11), (3, 20), (4, 10), (5, 50), (6, 20)], dtype=ROW)
    # the first (1, 10) goes for its id, so its text no longer counts against (4, 10)
    assert find_duplicates(rows).tolist() == [SAME_ID, KEEP, KEEP, SAME_TEXT, KEEP, KEEP, SAME_TEXT]


def test_nothing_and_one():
    assert find_duplicates(np.empty(0, dtype=ROW)).tolist() == []
    assert find_duplicates(np.array([(1, 1)], dtype=ROW)).tolist() == [KEEP]


def test_normalised_text():
    assert normalised("  The ﬁrst\n\nCO₂ STRASSE ") == normalised("the first co2 Straße")
    assert normalised("age <5") != normalised("age >5")
