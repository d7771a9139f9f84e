"""Pages in the encodings of the web, under correct, wrong and no labels.

They are decoded correctly or put aside, never garbled.
"""

import codecs
import os

import pytest

from data_prep.readers.page_encoding import UnknownEncodingError, decode_page

TEXTS = {
    "windows-1251": (
        "Астма — хроническое заболевание дыхательных путей, при котором становится трудно дышать."
        " Лечение помогает больным."
    ),
    "koi8-r": (
        "Астма - хроническое заболевание дыхательных путей, при котором становится трудно дышать."
        " Лечение помогает больным."
    ),
    "gbk": "哮喘是一种慢性呼吸道疾病，会使呼吸变得困难，大多数患者可以得到很好的治疗。",
    "gb18030": "哮喘是一种慢性呼吸道疾病，会使呼吸变得困难，大多数患者可以得到很好的治疗。",
    "big5": "氣喘是一種慢性呼吸道疾病，會使呼吸變得困難，大多數患者可以得到很好的治療。",
    "shift_jis": (
        "喘息は気道の慢性的な病気で、呼吸が苦しくなりますが、ほとんどの人はよく治療できます。"
    ),
    "euc-jp": (
        "喘息は気道の慢性的な病気で、呼吸が苦しくなりますが、ほとんどの人はよく治療できます。"
    ),
    "euc-kr": (
        "천식은 호흡을 어렵게 만드는 기도의 만성 질환이며"
        " 대부분의 사람들에게서 잘 치료될 수 있습니다."
    ),
    "windows-1250": (
        "Astma jest przewlekłą chorobą dróg oddechowych, która utrudnia oddychanie, ale można ją"
        " skutecznie leczyć u osób."
    ),
    "windows-1253": (
        "Το άσθμα είναι μια χρόνια πάθηση των αεραγωγών που δυσκολεύει την αναπνοή και μπορεί να"
        " αντιμετωπιστεί καλά."
    ),
    "windows-1256": (
        "الربو مرض مزمن يصيب الشعب الهوائية ويجعل التنفس صعبا ويمكن علاجه جيدا لدى معظم الناس."
    ),
    "windows-1254": (
        "Astım, nefes almayı zorlaştıran kronik bir solunum yolu hastalığıdır ve çoğu kişide iyi"
        " tedavi edilebilir."
    ),
    "windows-1252": (
        "L’asthme est une maladie chronique des voies aériennes – elle peut être “bien” traitée à"
        " tout âge…"
    ),
}
LABELS = [
    "",
    '<meta charset="iso-8859-1">',
    "<meta charset=us-ascii>",
    "<meta charset='utf-8'>",
    "<meta charset=nonsense>",
]


def page(text, label=""):
    return f"<html><head>{label}<title>Page</title></head><body><p>{text}</p></body></html>"


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize(
    "label", [*LABELS, '<meta http-equiv="Content-Type" content="text/html; charset={}">']
)
def test_detected_under_any_label(encoding, label):
    text = page(TEXTS[encoding], label.format(encoding))
    assert decode_page(text.encode(encoding)) == text
    for sure in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        assert decode_page(text.encode(sure)) == text
    assert decode_page(text.encode(), "iso-8859-1") == text
    assert decode_page(codecs.BOM_UTF8 + text.encode(), encoding) == text


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"<p>\x93Caf\xe9\x94 \x96 5 \x80</p>", "iso-8859-1", "<p>“Café” – 5 €</p>"),
        (b"<p>Caf\xe9, 10 m\xb3 \xb1 2 \xb5g</p>", "us-ascii", "<p>Café, 10 m³ ± 2 µg</p>"),
        ("<p>Привет мир</p>".encode("koi8-r"), "koi8-r", "<p>Привет мир</p>"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=windows-1251>"
         + "<p>Привет мир".encode("cp1251"), None,
         "<!-- <meta charset=koi8-r> --><meta charset=windows-1251><p>Привет мир"),
        (b"<?xml version='1.0' encoding='windows-1251'?><p>" + "Привет мир".encode("cp1251"), None,
         "<?xml version='1.0' encoding='windows-1251'?><p>Привет мир"),
        (b"<meta charset=koi8-r>" + "<p>Привет мир".encode("cp1251"), "windows-1251",
         "<meta charset=koi8-r><p>Привет мир"),
        ("<p>喘息は気道</p>".encode("iso2022_jp"), None, "<p>喘息は気道</p>"),
        ("é".encode() * 50 + b" caf\xe9 \x93old\x94", "utf-8", "é" * 50 + " café “old”"),
        (page("Café – d’été à Genève").encode().decode("cp1252").encode(), None,
         page("Café – d’été à Genève")),
        (b"<p>a\0b</p>", None, "<p>ab</p>"),
    ],
)  # fmt: skip
def test_single_cases(data, charset, text):
    assert decode_page(data, charset) == text


@pytest.mark.parametrize("encoding", ["windows-1251", "koi8-r", "windows-1253", "gbk", "euc-kr"])
@pytest.mark.parametrize("label", ["windows-1251", "koi8-r", "iso-8859-5", "windows-1254"])
def test_detected_under_a_false_single_byte_label(encoding, label):
    text = page(TEXTS[encoding], f"<meta charset={label}>")
    assert decode_page(text.encode(encoding)) == text


@pytest.mark.parametrize("label", ["windows-1251", "koi8-r"])
def test_capitals_inside_words_refute_a_label(label):
    text = page(TEXTS["koi8-r"], f"<meta charset={label}>")
    with pytest.raises(UnknownEncodingError):
        decode_page(text.encode("iso-8859-5"))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("windows-1251", "АСТМА - ХРОНИЧЕСКОЕ ЗАБОЛЕВАНИЕ ДЫХАТЕЛЬНЫХ ПУТЕЙ"),
        ("windows-1251", "Астма — хронічне захворювання, при якому стає важко дихати."),
        ("koi8-u", "Астма - хронічне захворювання, при якому стає важко дихати."),
        ("iso-8859-5", TEXTS["koi8-r"]),
        ("iso-8859-2", "Příliš žluťoučký kůň úpěl ďábelské ódy."),
        ("windows-1250", "Durere de cap şi febră la pacienţii trataţi."),
        ("windows-1257", "Astmos gydymas trunka ilgai, žmonės serga dažnai kiekvieną dieną."),
        ("iso-8859-4", "Astmos gydymas trunka ilgai, žmonės serga dažnai kiekvieną dieną."),
        ("iso-8859-6", "علاج الربو يستغرق وقتا طويلا"),
        ("windows-1255", "אסתמה היא מחלה כרונית של דרכי הנשימה"),
    ],
)
def test_right_labels_are_not_refuted(encoding, text):
    text = page(text, f"<meta charset={encoding}>")
    assert decode_page(text.encode(encoding)) == text


@pytest.mark.parametrize("label", LABELS)
def test_undetectable_encodings_are_rejected(label):
    text = page(TEXTS["koi8-r"], label)
    with pytest.raises(UnknownEncodingError):
        decode_page(text.encode("cp866"))
    for size in (100, 10_000):
        with pytest.raises(UnknownEncodingError):
            decode_page(label.encode() + b"\x81\x8d\x8f\x90" + os.urandom(size))
