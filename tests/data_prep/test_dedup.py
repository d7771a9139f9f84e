import json
import random

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupSignature

from data_prep.curation.registry import build_step
from data_prep.steps.dedup.article_id import DedupByIdSettings
from data_prep.steps.dedup.clusters import clusters_of
from data_prep.steps.dedup.exact import ROW, SAME_ID, SAME_TEXT, find_duplicates, normalized
from data_prep.steps.dedup.minhash import MinhashDedupSettings
from data_prep.steps.global_step import KEEP
from data_prep.text.words import Words
from tests.data_prep.documents import STORY, distinct, through


def test_the_last_of_an_id_and_the_first_of_a_text_are_kept():
    rows = np.array([(1, 10), (2, 20), (1, 11), (3, 20), (4, 10), (5, 50), (6, 20)], dtype=ROW)
    # the first (1, 10) goes for its id, so its text no longer counts against (4, 10)
    assert find_duplicates(rows).tolist() == [SAME_ID, KEEP, KEEP, SAME_TEXT, KEEP, KEEP, SAME_TEXT]


def test_nothing_and_one():
    assert find_duplicates(np.empty(0, dtype=ROW)).tolist() == []
    assert find_duplicates(np.array([(1, 1)], dtype=ROW)).tolist() == [KEEP]


def test_normalized_text():
    assert normalized("  The ﬁrst\n\nCO₂ STRASSE ") == normalized("the first co2 Straße")
    assert normalized("age <5") != normalized("age >5")


def near_texts():
    """200 texts of 80 words; every fourth is a copy of another with up to five words changed."""
    chance = random.Random(3)
    texts = []
    for number in range(200):
        words = [f"w{chance.randrange(3000)}" for _ in range(80)]
        if number % 4 == 3:
            words = texts[-chance.randrange(1, 4)].split()
            for position in chance.sample(range(80), chance.randrange(6)):
                words[position] = "other"
        texts.append(" ".join(words))
    return texts


def clusters(context):
    return [json.loads(line) for line in (context.folder / "publish/duplicates.jsonl").open()]


@pytest.mark.parametrize(("keep", "expected"), [("longest", "longest"), ("first", "April")])
def test_of_near_duplicates_the_longest_or_first_is_kept_and_all_are_listed(
    tmp_path, keep, expected
):
    alike = [
        Document(text=STORY.replace("March", month), id=month) for month in ("April", "May", "June")
    ]
    longest = Document(text=STORY + " Then he left.", id="longest")
    others = [Document(text=distinct(n), id=f"o{n}") for n in range(9)]
    tasks = (("a", [*alike[:2], *others[:3]]), ("a", [longest]), ("b", [alike[2], *others[3:]]))
    left, context = through(build_step(MinhashDedupSettings(keep=keep)), tmp_path, *tasks)
    assert {document.id for part in left for document in part} == {expected} | {
        document.id for document in others
    }
    (cluster,) = clusters(context)
    assert {cluster["kept"], *cluster["dropped"]} == {"April", "May", "June", "longest"}
    assert cluster["kept"] == expected


def test_an_abstract_is_dropped_if_its_full_text_is_in_the_corpus(tmp_path):
    def document(identifier, text, **metadata):
        return Document(text=text, id=identifier, metadata=metadata)

    full = [
        document("f1", "Full text one. " * 9, pmcid="PMC1", doi="https://doi.org/10.1/ABC"),
        document("f2", "Two.", pmid=2),
    ]
    short = [
        document("s1", "Abstract one.", pmid="1", doi="10.1/abc"),
        document("s2", "Also one.", pmid="1"),
        document("s3", "Abstract two.", pmid="2"),
        document("s4", "Abstract four.", pmid="4"),
        document("s5", "Abstract four, longer.", pmid="4"),
        document("s6", "Nameless."),
    ]
    left, context = through(
        build_step(DedupByIdSettings(prefer=["full"])),
        tmp_path,
        ("short", short[:3]),
        ("full", full),
        ("short", short[3:]),
    )
    assert [[document.id for document in part] for part in left] == [[], ["f1", "f2"], ["s5", "s6"]]
    better, again = 1, 2  # the source; numbers of the reasons
    decisions = [
        np.load(context.folder / f"decisions/{task:05d}.npy").tolist() for task in range(3)
    ]
    assert decisions == [[better] * 3, [KEEP] * 2, [again, KEEP, KEEP]]


def test_near_duplicates_agree_with_datatrove(tmp_path):
    """The same clusters as pairs by datatrove's own merge of sorted signatures give."""
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(near_texts())]
    step = build_step(MinhashDedupSettings())
    _, context = through(step, tmp_path / "ours", ("a", documents[:90]), ("a", documents[90:]))
    ours = sorted(
        sorted(int(name) for name in [cluster["kept"], *cluster["dropped"]])
        for cluster in clusters(context)
    )

    MinhashDedupSignature(str(tmp_path / "signatures"), step.config, language=Words()).run(
        iter(documents), 0, 1
    )
    pairs = []
    for band in range(step.config.num_buckets):
        MinhashDedupBuckets(
            str(tmp_path / "signatures"), str(tmp_path / "pairs"), config=step.config
        ).run(None, band, 14)
    for path in (tmp_path / "pairs").glob("*.dups"):
        pairs += np.fromfile(path, dtype="<u4").reshape(-1, 4)[:, [1, 3]].tolist()
    theirs = sorted(clusters_of(np.array(pairs)))
    assert len(theirs) > 10
    assert ours == theirs
