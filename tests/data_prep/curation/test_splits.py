from collections import Counter

from data_prep.curation.recipe import SplitFractions
from data_prep.curation.splits import split_of


def test_fractions_are_met_and_the_split_depends_on_the_identifier_alone():
    fractions = SplitFractions(train=0.9, validation=0.04, test=0.06)
    counts = Counter(split_of(str(pmid), fractions) for pmid in range(20000))
    assert abs(counts["train"] / 20000 - 0.9) < 0.01
    assert abs(counts["validation"] / 20000 - 0.04) < 0.006
    assert abs(counts["test"] / 20000 - 0.06) < 0.006


def test_known_values_never_change():
    fractions = SplitFractions(train=0.5, validation=0.25, test=0.25)
    assert [split_of(str(pmid), fractions) for pmid in (1, 2, 3, 4, 5, 6, 7, 8)] == KNOWN
    assert [
        split_of(str(pmid), SplitFractions(train=0, validation=0, test=1)) for pmid in (1, 2)
    ] == [
        "test",
        "test",
    ]


def test_another_salt_gives_another_division():
    first, second = (
        SplitFractions(train=0.5, validation=0, test=0.5),
        SplitFractions(train=0.5, validation=0, test=0.5, salt="other"),
    )
    assert (
        400
        < sum(split_of(str(pmid), first) != split_of(str(pmid), second) for pmid in range(1000))
        < 600
    )


KNOWN = ["test", "validation", "test", "validation", "train", "train", "train", "validation"]
