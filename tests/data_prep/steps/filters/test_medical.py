import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.filters.medical import (
    KEYWORDS,
    RULES,
    MedicalSettings,
    TermMatcher,
    read_terms,
)
from galen.errors import UsageError


@pytest.mark.parametrize("language", RULES)
def test_every_language_has_its_list(language):
    terms = read_terms(KEYWORDS / f"{language}.txt")
    assert len(terms) == len(set(terms)) >= 150


def test_punctuation_and_inflection_do_not_hide_a_term():
    assert TermMatcher("es", ["cáncer"]).find("Cáncer, cánceres; CANCER: cancerígeno.")[0] == 1
    assert TermMatcher("ru", ["пациент"]).find("«Пациентов» и пациентам.") == (
        1,
        pytest.approx(2 * 7 / 24),
    )
    assert TermMatcher("de", ["Katheter"]).find("(Kathetern)")[0] == 1
    assert TermMatcher("en", ["heart failure", "failure"]).find("Heart-failure.")[0] == 2


def test_arabic_words_match_with_and_without_the_article():
    matcher = TermMatcher("ar", ["فيروس", "مستشفى", "علاجي"])
    assert matcher.find("الفيروس وفيروسات والفيروسات")[0] == 1
    assert matcher.find("للمستشفيات العلاجية")[0] == 2
    assert matcher.find("وفي كل عام")[0] == 0


def test_terms_match_words_and_in_unspaced_scripts_substrings():
    assert TermMatcher("en", ["graft"]).find("grafting graftonite craft")[0] == 1
    assert TermMatcher("en", ["rat"]).find("a rate, a grate, a democrat") == (0, 0)
    assert TermMatcher("zh", ["肺炎"]).find("重症肺炎患者。肺炎") == (1, pytest.approx(4 / 9))
    assert TermMatcher("ja", ["糖尿病"]).find("2型糖尿病の治療")[0] == 1


def test_characters_count_once_where_terms_overlap():
    unique, density = TermMatcher("en", ["blood pressure", "pressure", "pressure monitoring"]).find(
        "blood pressure monitoring"
    )
    assert unique == 3
    assert density <= 1


MEDICAL = (
    "Hypertension and atrial fibrillation raise the incidence of ischemic disease. Anticoagulant"
    " therapeutic regimens reduce mortality after myocardial infarction, but hemorrhage and renal"
    " toxicity are adverse events that physicians weigh at each outpatient visit."
)
EVERYDAY = (
    "The striker recovered the ball in the middle of the field and passed it to the left, where the"
    " winger was already running. Two minutes later the crowd was on its feet: the first goal of"
    " the season, and the doctor was dancing with the reserve goalkeeper."
)


def test_filter():
    medical = build_step(MedicalSettings())
    assert medical.filter(Document(text=MEDICAL, id="1", metadata={"text_language": "en"})) is True
    assert medical.filter(Document(text=EVERYDAY, id="2", metadata={"text_language": "en"})) == (
        False,
        "too few medical terms",
    )
    long = Document(text=MEDICAL + EVERYDAY * 30, id="3", metadata={"text_language": "en"})
    assert medical.filter(long) == (False, "low density of medical terms")
    assert medical.filter(Document(text="Jest.", id="4", metadata={"text_language": "pl"})) == (
        False,
        "no keyword list (pl)",
    )


def test_custom_keyword_lists(tmp_path):
    with pytest.raises(UsageError, match="no lists of keywords"):
        build_step(MedicalSettings(keywords=str(tmp_path)))
    (tmp_path / "en.txt").write_text("# sports\nball\nfield\ngoal\n")
    own = build_step(MedicalSettings(min_unique=3, min_density=0, keywords=str(tmp_path)))
    assert own.filter(Document(text=EVERYDAY, id="2", metadata={"text_language": "en"})) is True
    (tmp_path / "xx.txt").write_text("x\n")
    with pytest.raises(UsageError, match=r"xx\.txt"):
        build_step(MedicalSettings(keywords=str(tmp_path)))
