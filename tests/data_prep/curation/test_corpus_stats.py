from datatrove.data import Document

from data_prep.curation.corpus_stats import Statistics, merge_statistics
from data_prep.curation.recipe import SplitFractions
from data_prep.curation.writers import SplitWriter
from tests.data_prep.material import read_records


def test_repeats_count_only_in_splits_that_have_them(tmp_path):
    fractions = SplitFractions(train=0.5, validation=0, test=0.5)
    documents = [
        Document(text="x" * 4, id=str(n), metadata={"repeats": 3, "date": "2020"})
        for n in range(40)
    ]
    steps = [
        Statistics(["a"], str(tmp_path / "statistics"), None, fractions),
        SplitWriter(str(tmp_path / "corpus"), fractions),
    ]
    assert len(list(steps[1].run(steps[0].run(iter(documents))))) == 40
    written = len(read_records(tmp_path / "corpus"))
    assert 60 < written < 100
    assert merge_statistics(tmp_path / "statistics", 1)["cells"] == [
        ["a", "unknown", "2020", written, written]
    ]
