from datetime import date

import numpy as np
import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.mixture.meditron_score import citations_per_year, type_and_age_score
from data_prep.steps.mixture.mixture import MixtureSettings, Upsample
from tests.data_prep.documents import through

TODAY = date(2023, 7, 15)


@pytest.mark.parametrize(
    ("types", "published", "score"),
    [
        (["Journal Article"], "2023-01-01", 0),
        (["Practice Guideline"], "2010", 1),
        (["Practice Guideline"], "2015-03", 1.2),
        (["Review", "Meta-Analysis"], "2020-02-30", 1.5),  # no such day: the date is not known
        (["Review", "Meta-Analysis"], "2020-02-28", 2.5),
        (["Review"], None, 0.5),
    ],
)
def test_score(types, published, score):
    assert type_and_age_score(
        {"publication_types": types, "date": published}, TODAY
    ) == pytest.approx(score)


def test_citations_per_year():
    assert citations_per_year({"citation_count": 30, "date": "2020-07-15"}, TODAY) == pytest.approx(
        30 / 4
    )
    assert np.isnan(citations_per_year({"date": "2020"}, TODAY))


def taken(mixture, folder, **sources):
    """Copies of each document, by source; `sources` gives their documents."""
    left, context = through(mixture, folder, *sources.items())
    return {
        name: {document.id: document.metadata.pop("repeats", 1) for document in part}
        for name, part in zip(sources, left, strict=True)
    }, context.report


def documents(prefix, count, size=400, **metadata):
    return [
        Document(text="x" * size, id=f"{prefix}{n}", metadata=dict(metadata)) for n in range(count)
    ]


def test_weights_are_rounded_at_random_and_independently(tmp_path):
    mixture = build_step(MixtureSettings(weights={"a": 2.5, "b": 0.1}))
    sampled, _ = taken(mixture, tmp_path / "1", a=documents("a", 2000), b=documents("b", 2000))
    assert set(sampled["a"].values()) == {2, 3}
    assert sum(sampled["a"].values()) == pytest.approx(5000, rel=0.03)
    assert len(sampled["b"]) == pytest.approx(200, rel=0.25)
    many, _ = taken(
        build_step(MixtureSettings(weights={"a": 300})), tmp_path / "3", a=documents("a", 1)
    )
    assert many["a"] == {"a0": 300}
    fewer, _ = taken(mixture, tmp_path / "2", a=documents("a", 100), b=documents("b", 2000))
    assert fewer["b"] == sampled["b"]
    assert fewer["a"] == {key: sampled["a"][key] for key in fewer["a"]}


def test_cap_and_replay_by_tokens(tmp_path):
    sampled, report = taken(
        build_step(MixtureSettings(max_tokens={"capped": 5_050}, replay={"replay": 0.1})),
        tmp_path,
        main=documents("m", 900),
        capped=documents("c", 100),
        replay=documents("r", 500),
    )
    assert len(sampled["capped"]) == 50  # 100 tokens each
    assert len(sampled["main"]) == 900
    # 10 % of all: 105 of (900 + 50 + 105), as far as whole documents go
    assert len(sampled["replay"]) == 105
    assert report["tokens"] == {"main": 90_000, "capped": 5_000, "replay": 10_500}


def test_upsampling_takes_types_and_the_quarters_of_citations(tmp_path):
    typed = [
        Document(
            text="x" * 40,
            id=str(n),
            metadata={"publication_types": ["Guideline"], "date": "2001", "citation_count": n},
        )
        for n in range(100)
    ]
    plain = documents("p", 50)
    sampled, _ = taken(
        build_step(MixtureSettings(upsample=Upsample())), tmp_path, typed=typed, plain=plain
    )
    assert set(sampled["plain"].values()) == {1}
    assert {sampled["typed"][str(n)] for n in range(25)} == {2}  # 1 + 1 for the type
    assert {sampled["typed"][str(n)] for n in range(75, 100)} == {3}
    assert {sampled["typed"][str(n)] for n in range(26, 74)} == {2, 3}  # 2.5
