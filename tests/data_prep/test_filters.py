import pytest
from datatrove.data import Document

from data_prep.filters.abstract import AbstractFilter
from data_prep.filters.copyright import reserves_rights
from data_prep.filters.language import LanguageFilter
from data_prep.filters.retraction import RetractionFilter


def document(text="T.\n\nA.", **metadata):
    return Document(
        text=text, id="1", metadata={"title": "T.", "language": ["eng"], "publication_types": [], "retracted": False} | metadata
    )


# Lines as they stand in MEDLINE files of 2021.
GRANTING = [
    "",
    "© 2021 The Authors. Published under the terms of the CC BY NC ND 4.0 license.",
    "Creative Commons Attribution license.",
    "Copyright © 2021 The Author(s). This is an Open Access article under the CC BY 4.0 license. All rights reserved.",
    "Published 2021. This article is a U.S. Government work and is in the public domain in the USA.",
    "© This is a U.S. government work and not under copyright protection in the U.S.; foreign copyright protection may apply 2021.",
    "© Author(s) (or their employer(s)) 2021. Re-use permitted under CC BY-NC. No commercial re-use. See rights and permissions.",
]
EXPLICIT = [
    "Copyright © 2021 Elsevier Ltd. All rights reserved.",
    "This article is protected by copyright. All rights reserved.",
    "© The Author(s), under exclusive licence to Springer Nature B.V. 2021.",
    "Copyright © 2021 The Authors, some rights reserved; exclusive licensee AAAS. No claim to original U.S. Government Works.",
]
BARE = ["© 2021 The Authors.", "This journal is © The Royal Society of Chemistry.", "Published by Elsevier Inc.", "© 2021 CCBYRNE Ltd."]


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
    assert AbstractFilter().filter(document()) is True
    assert AbstractFilter().filter(document("An abstract only.", title="")) is True
    assert AbstractFilter().filter(document("T.")) == (False, "no abstract")
    assert AbstractFilter(required=False).filter(document("T.")) is True
    assert AbstractFilter(required=False).filter(document("", title="")) == (False, "no text")


def test_language():
    assert LanguageFilter(["eng"]).filter(document(language=["ger", "eng"])) is True
    assert LanguageFilter(["eng"]).filter(document(language=["ger"])) == (False, "not wanted")
    assert LanguageFilter(["en", "deu"]).filter(document(language=["ger"])) is True
    assert LanguageFilter(["eng"]).filter(document(language=[])) == (False, "not wanted")


def test_retraction():
    keep = RetractionFilter().filter
    assert keep(document()) is True
    assert keep(document(retracted=True)) == (False, "retracted article")
    assert keep(document(publication_types=["Journal Article", "Retracted Publication"])) == (False, "retracted article")
    assert keep(document(publication_types=["Retraction of Publication"])) == (False, "retraction notice")
