import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.filters.abstract import AbstractSettings
from data_prep.steps.filters.animal_only import AnimalOnlySettings
from data_prep.steps.filters.copyright import reserves_rights
from data_prep.steps.filters.language import LanguageSettings
from data_prep.steps.filters.length import LengthSettings
from data_prep.steps.filters.license import LicenseSettings, family
from data_prep.steps.filters.pii import PiiSettings
from data_prep.steps.filters.publication_type import PublicationTypeSettings
from data_prep.steps.filters.quality import QualitySettings, RepetitionSettings
from data_prep.steps.filters.retraction import RetractionSettings
from tests.data_prep.documents import STORY


def filtered(settings, document):
    """The decision of a filter with these settings."""
    return build_step(settings).filter(document)


def document(text="T.\n\nA.", **metadata):
    return Document(
        text=text,
        id="1",
        metadata={"title": "T.", "language": ["eng"], "publication_types": [], "retracted": False}
        | metadata,
    )


# Lines as they stand in MEDLINE files of 2021.
GRANTING = [
    "",
    "© 2021 The Authors. Published under the terms of the CC BY NC ND 4.0 license.",
    "Creative Commons Attribution license.",
    (
        "Copyright © 2021 The Author(s). This is an Open Access article under the CC BY 4.0"
        " license. All rights reserved."
    ),
    (
        "Published 2021. This article is a U.S. Government work and is in the public domain in the"
        " USA."
    ),
    (
        "© This is a U.S. government work and not under copyright protection in the U.S.; foreign"
        " copyright protection may apply 2021."
    ),
    (
        "© Author(s) (or their employer(s)) 2021. Re-use permitted under CC BY-NC. No commercial"
        " re-use. See rights and permissions."
    ),
]
EXPLICIT = [
    "Copyright © 2021 Elsevier Ltd. All rights reserved.",
    "This article is protected by copyright. All rights reserved.",
    "© The Author(s), under exclusive licence to Springer Nature B.V. 2021.",
    (
        "Copyright © 2021 The Authors, some rights reserved; exclusive licensee AAAS. No claim to"
        " original U.S. Government Works."
    ),
]
BARE = [
    "© 2021 The Authors.",
    "This journal is © The Royal Society of Chemistry.",
    "Published by Elsevier Inc.",
    "© 2021 CCBYRNE Ltd.",
]


@pytest.mark.parametrize("line", GRANTING)
def test_granting_lines_reserve_nothing(line):
    assert not reserves_rights(line, "any_claim")
    assert not reserves_rights(line, "explicit")


@pytest.mark.parametrize("line", EXPLICIT)
def test_lines_that_reserve_in_words(line):
    assert reserves_rights(line, "any_claim")
    assert reserves_rights(line, "explicit")
    assert not reserves_rights(line, "ignore")


@pytest.mark.parametrize("line", BARE)
def test_bare_claims(line):
    assert reserves_rights(line, "any_claim")
    assert not reserves_rights(line, "explicit")


def test_abstract():
    assert filtered(AbstractSettings(), document()) is True
    assert filtered(AbstractSettings(), document("An abstract only.", title="")) is True
    assert filtered(AbstractSettings(), document("T.")) == (False, "no abstract")
    assert filtered(AbstractSettings(required=False), document("T.")) is True
    assert filtered(AbstractSettings(required=False), document("", title="")) == (
        False,
        "no text",
    )


def test_language():
    assert filtered(LanguageSettings(languages=["eng"]), document(language=["ger", "eng"])) is True
    assert filtered(LanguageSettings(languages=["eng"]), document(language=["ger"])) == (
        False,
        "other language",
    )
    assert filtered(LanguageSettings(languages=["en", "deu"]), document(language=["ger"])) is True
    assert filtered(LanguageSettings(languages=["eng"]), document(language=[])) == (
        False,
        "other language",
    )


def test_retraction():
    keep = build_step(RetractionSettings()).filter
    assert keep(document()) is True
    assert keep(document(retracted=True)) == (False, "retracted article")
    assert keep(document(publication_types=["Journal Article", "Retracted Publication"])) == (
        False,
        "retracted article",
    )
    assert keep(document(publication_types=["Retraction of Publication"])) == (
        False,
        "retraction notice",
    )


@pytest.mark.parametrize(
    ("license", "decision"),
    [
        ("CC-BY-4.0", True),
        ("CC BY 2.5", True),
        ("cc-by-sa", True),
        ("CC0-1.0", True),
        ("public-domain", True),
        ("CC-BY-NC-4.0", (False, "CC-BY-NC not allowed")),
        ("CC-BY-NC-ND-4.0", (False, "CC-BY-NC-ND not allowed")),
        ("other", (False, "custom license")),
        ("", (False, "no license stated")),
    ],
)
def test_license(license, decision):
    assert filtered(LicenseSettings(), document(license=license)) == decision


def test_license_family():
    assert family("CC-BY-4.0") == family("cc by 3.0") == "CC-BY"
    assert filtered(LicenseSettings(allowed=["CC0"], if_missing="keep"), document()) is True


def test_publication_type_and_animals():
    assert filtered(
        PublicationTypeSettings(drop=["editorial"]),
        document(publication_types=["Journal Article", "Editorial"]),
    ) == (False, "Editorial")
    assert filtered(PublicationTypeSettings(drop=["Comment"]), document()) is True
    heading = {"Animals": {"name": "Animals"}, "Humans": {"name": "Humans"}}
    assert filtered(AnimalOnlySettings(), document(mesh=[heading["Animals"]])) == (
        False,
        "animals without humans",
    )
    assert filtered(AnimalOnlySettings(), document(mesh=list(heading.values()))) is True
    assert filtered(
        AnimalOnlySettings(), document(publication_types=["Observational Study, Veterinary"])
    ) == (False, "veterinary")


def test_length_counts_chinese_too():
    assert filtered(LengthSettings(min_words=3), document("two words")) == (False, "too short")
    assert filtered(LengthSettings(min_words=3), document("重症肺炎患者")) is True
    assert filtered(LengthSettings(min_words=1, max_words=3), document("one two three four")) == (
        False,
        "too long",
    )


def test_quality_keeps_figures_and_drops_garbage():
    quality = build_step(QualitySettings())
    assert quality.filter(document(STORY)) is True
    figures = (
        "The rate was 12.5 % (95 % CI 10.1-14.9) in group A and 8.3 % (95 % CI 6.2-10.4) in group"
        " B, a difference of 4.2 with P of 0.01."
    )
    assert quality.filter(document(figures)) is True
    assert quality.filter(document("1 2 3 4 5 6 7 8 9 of the 10")) == (
        False,
        "too few words with letters",
    )
    assert quality.filter(document("Buy cheap shoes online today free shipping worldwide")) == (
        False,
        "too few stop words",
    )
    assert (
        quality.filter(document("重症肺炎患者在医院接受了两周的治疗。", text_language="zh")) is True
    )
    assert filtered(RepetitionSettings(), document("The same line again.\n" * 10))[0] is False
    assert filtered(RepetitionSettings(), document(STORY)) is True


def test_common_phrases_in_unspaced_scripts_are_not_repetition():
    """Six different statements of about 23 characters with the same ending.

    Its sequences of five characters are not repeated text.
    """
    prose = (
        "高血圧では腎臓の働きが数年で低下することがある。"
        "糖尿病は目の血管にも大きな負担がかかることがある。"
        "薬を飲み忘れた翌朝に血圧が急に上がることがある。食塩を控えれば検査の数値が改善することがある。"
        "激しい運動の後は息苦しさを覚えることがある。眠れない夜が続くと頭が痛くなることがある。"
    )
    repetition = build_step(RepetitionSettings())
    assert repetition.filter(document(prose, text_language="ja")) is True
    assert repetition.filter(document(prose, text_language="en")) == (False, "duplicated 5 n grams")
    assert repetition.filter(document("重症の肺炎で入院した。" * 9, text_language="ja"))[0] is False


def test_personal_data():
    changed = document(
        "Write to jane.doe@hospital.org or call +41 21 693 11 11; ratio +1 2 of 8.8.8.8 at 10^5."
    )
    assert filtered(PiiSettings(phones=True), changed) is True
    assert (
        changed.text
        == "Write to email@example.com or call [phone]; ratio +1 2 of 22.214.171.124 at 10^5."
    )
