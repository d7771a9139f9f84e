import json
import random

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupSignature

from data_prep.corpus_step import KEEP, Context
from data_prep.dedup.clusters import clusters_of
from data_prep.dedup.duplicate import ROW, SAME_ID, SAME_TEXT, find_duplicates, normalised
from data_prep.dedup.near_duplicate import NearDuplicates
from data_prep.words import Words


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


def near_texts():
    """200 texts of 80 words; every fourth one is one of the others with up to five words changed."""
    chance = random.Random(3)
    texts = []
    for number in range(200):
        words = [f"w{chance.randrange(3000)}" for _ in range(80)]
        if number % 4 == 3:
            words = texts[-chance.randrange(1, 4)].split()
            for place in chance.sample(range(80), chance.randrange(6)):
                words[place] = "other"
        texts.append(" ".join(words))
    return texts


def test_near_duplicates_are_those_of_datatrove(tmp_path):
    """The same clusters as pairs by datatrove's own merge of sorted signatures give."""
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(near_texts())]
    step = NearDuplicates()

    def run(label, steps, tasks):
        for rank in range(tasks):
            assert list(steps[0].run(None, rank, tasks)) == []

    context = Context(tmp_path / "ours", ["a", "a"], run)
    for rank, part in enumerate((documents[:90], documents[90:])):
        assert len(list(step.notes(context)[0].run(iter(part), rank, 2))) == len(part)
    (context.folder / "verdicts").mkdir()
    step.decide(context)
    records = map(json.loads, (context.folder / "publish/duplicates.jsonl").read_text().splitlines())
    ours = sorted(sorted(int(name) for name in [record["kept"], *record["dropped"]]) for record in records)

    MinhashDedupSignature(str(tmp_path / "signatures"), step.config, language=Words()).run(iter(documents), 0, 1)
    pairs = []
    for band in range(step.config.num_buckets):
        MinhashDedupBuckets(str(tmp_path / "signatures"), str(tmp_path / "pairs"), config=step.config).run(None, band, 14)
    for path in (tmp_path / "pairs").glob("*.dups"):
        pairs += np.fromfile(path, dtype="<u4").reshape(-1, 4)[:, [1, 3]].tolist()
    theirs = sorted(clusters_of(np.array(pairs)))
    assert len(theirs) > 10
    assert ours == theirs
