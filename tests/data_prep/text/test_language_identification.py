import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.filters.language_id import LanguageIdSettings
from data_prep.text.language_identification import language_fractions

# one sentence each, written for this test
SENTENCES = {
    "en": "Patients with severe pneumonia were treated in hospital for two weeks.",
    "zh": "重症肺炎患者在医院接受了两周的治疗，大多数患者康复出院。",
    "ja": "重症肺炎の患者は病院で二週間の治療を受け、ほとんどが回復しました。",
    "fr": (
        "Les patients atteints d'une pneumonie sévère ont été traités à l'hôpital pendant deux"
        " semaines."
    ),
    "ru": "Пациенты с тяжёлой пневмонией лечились в больнице в течение двух недель.",
    "es": "Los pacientes con neumonía grave fueron tratados en el hospital durante dos semanas.",
    "de": (
        "Patienten mit schwerer Lungenentzündung wurden zwei Wochen lang im Krankenhaus behandelt."
    ),
    "pt": (
        "Os pacientes com pneumonia grave foram tratados no hospital durante duas semanas, não em"
        " casa."
    ),
    "it": "I pazienti con polmonite grave sono stati curati in ospedale per due settimane.",
    "ar": "عولج المرضى المصابون بالتهاب رئوي حاد في المستشفى لمدة أسبوعين.",
    "ko": "중증 폐렴 환자들은 병원에서 2주 동안 치료를 받았습니다.",
    "nl": (
        "Patiënten met een ernstige longontsteking werden twee weken in het ziekenhuis behandeld."
    ),
    "pl": "Pacjenci z ciężkim zapaleniem płuc byli leczeni w szpitalu przez dwa tygodnie.",
    "sv": "Patienter med svår lunginflammation behandlades på sjukhus i två veckor.",
    "tr": "Ağır zatürre hastaları iki hafta boyunca hastanede tedavi edildi.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_of_each_language(language):
    assert next(iter(language_fractions(SENTENCES[language]))) == language


@pytest.mark.parametrize("title", ["de", "fr", "ru", "zh"])
def test_a_foreign_title_does_not_decide(title):
    shares = language_fractions(
        f"{SENTENCES[title]}\n\nRESULTS: {SENTENCES['en']} {SENTENCES['en']} {SENTENCES['en']}"
    )
    assert next(iter(shares)) == "en"
    assert set(shares) == {"en", title}
    assert sum(shares.values()) == pytest.approx(1)


def language_id(**settings):
    return build_step(LanguageIdSettings(**settings)).filter


def test_filter():
    document = Document(text=f"{SENTENCES['fr']}\n\n{SENTENCES['en'] * 3}", id="1", metadata={})
    assert language_id(languages=["en"])(document) is True
    assert document.metadata["text_language"] == "en"
    assert document.metadata["text_languages"]["en"] > 0.6
    assert language_id(languages=["fr"])(document) == (
        False,
        "other language (en)",
    )
    assert language_id(languages=["en"], candidates=["fr", "de"])(document) is True
    assert language_id(languages=["en"], min_fraction=0.95)(document) == (
        False,
        "no main language",
    )
    assert language_id()(Document(text="12.5 %", id="2", metadata={})) == (
        False,
        "no letters",
    )
