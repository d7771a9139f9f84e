"""Raised numbers keep their value in every format that has superscripts."""

from functools import partial

import pytest
from lxml import etree

from data_prep.readers.jats import JatsReader
from data_prep.readers.markup import math, plain_text
from data_prep.readers.medline import MedlineReader
from data_prep.readers.tei import TeiReader
from data_prep.readers.xml_tree import MATHML
from tests.data_prep.material import read_raw

POWERS = [
    ("10<sup>6</sup> cells", "10^6 cells"),
    ("5 × 10 <sup>6</sup> cells", "5 × 10^6 cells"),
    ("5x10 <sup>-8</sup>.", "5x10^-8."),
    ("10<sup>4-5</sup> and 10<sup>3–4</sup>/mL", "10^4-5 and 10^3–4/mL"),
    ("10<sup>4 to 5</sup>", "10^4 to 5"),
    ("10<sup><i>6</i></sup> CFU", "10^6 CFU"),
    ("10<i><sup>6</sup></i> CFU", "10^6 CFU"),
    ("<b>10</b><sup>6</sup>", "10^6"),
    ("10<sup>6 </sup>cells", "10^6 cells"),
    ("10<sup>-</sup><sup>8</sup>", "10^-8"),
    ("10<sup>6.5</sup> and 10<sup>6·5</sup>", "10^6.5 and 10^6·5"),
    ("10<sup>+3</sup>, 10<sup>&#8722;8</sup>", "10^+3, 10^−8"),
    (
        "1.73 m<sup>2</sup>; kg m<sup>-2</sup>; kg m <sup>-2</sup>; 30 cm <sup>3</sup>",
        "1.73 m^2; kg m^-2; kg m^-2; 30 cm^3",
    ),
    ("R <sup>2</sup> = 0.8, (a + b)<sup>2</sup>", "R^2 = 0.8, (a + b)^2"),
    ("10<sup>n</sup>, 2<sup>-ΔΔCt</sup>, 2<sup>−ΔΔC<sub>T</sub></sup>", "10^n, 2^-ΔΔCt, 2^−ΔΔCT"),
    ("10<sup>-4</sup><sub>M</sub>", "10^-4M"),
    (
        "10<sup>4.5±0.3</sup>, 10<sup>&gt;6</sup>, 10<sup>~6</sup>, 10<sup>(6)</sup>",
        "10^4.5±0.3, 10^>6, 10^~6, 10^(6)",
    ),
    ("10<sup>—5</sup>, 10<sup>－5</sup>", "10^—5, 10^－5"),
    ("10<sup>-</sup>8, 10 <sup>-</sup> <sup>8</sup>", "10^-8, 10^-8"),
    ("2<sup>-∆∆Ct</sup>, e<sup>-kt</sup>, 9.8 m/s <sup>2</sup>", "2^-∆∆Ct, e^-kt, 9.8 m/s^2"),
    ("W/m<sup>2</sup>K, 5 m<sup>2</sup> and, A/m<sup>2</sup>A", "W/m^2K, 5 m^2 and, A/m^2A"),
    (
        "η<sup>2</sup> = 0.1, R<sup>2</sup>-values, N<sup>2</sup>, cm<sup>2</sup>V<sup>-1</sup>",
        "η^2 = 0.1, R^2-values, N^2, cm^2V^-1",
    ),
    (
        "10<sup>11 (11)</sup>, 10<sup>6/mL</sup>, ×10<sup>12/L</sup>",
        "10^11 (11), 10^6/mL, ×10^12/L",
    ),
    ("10<sup>6 cells</sup>, 5 x 10 <sup>6/mL</sup>", "10^6 cells, 5 x 10^6/mL"),
    ("10<sup>.5</sup>, 10<sup>1∙5</sup>, 10<sup>1⋅5</sup>", "10^.5, 10^1∙5, 10^1⋅5"),
    ("10<sup>5-</sup>10<sup>6</sup>, 10<sup>−4 M</sup>", "10^5-10^6, 10^−4 M"),
    (
        "height<sup>2</sup>, partial eta<sup>2</sup>, nV/degree<sup>2</sup>",
        "height^2, partial eta^2, nV/degree^2",
    ),
]
OTHERS = [
    ("202 <sup>1</sup>H-MRS scans", "202 1H-MRS scans"),
    ("10 <sup>18</sup>F-FDG scans", "10 18F-FDG scans"),
    ("10 <sup>18F</sup>-FDG and 10 <sup>99m</sup>Tc scans", "10 18F-FDG and 10 99mTc scans"),
    ("the 10<sup>th</sup> day, 10<sup>a</sup>", "the 10th day, 10a"),
    ("<sup>99m</sup>Tc, <sup>18</sup>F", "99mTc, 18F"),
    ("202 ¹H-MRS", "202 ¹H-MRS"),
    ("CD4<sup>+</sup>, Ca<sup>2+</sup>, Ca<sup>2</sup><sup>+</sup>", "CD4+, Ca2+, Ca2+"),
    ("the 5<sup>th</sup> day, 1<sup>st</sup>", "the 5th day, 1st"),
    ("as shown.<sup>12,13</sup> Then", "as shown. [12,13] Then"),
    ("as described<sup>12,13</sup> before", "as described [12,13] before"),
    ("in others (see)<sup>4-6</sup>", "in others (see) [4-6]"),
    ("in 2010.<sup>12</sup> Then", "in 2010. [12] Then"),
    ("in animals<sup>1</sup>. It", "in animals [1]. It"),
    (
        "as Becker<sup>2</sup> wrote; Doe et al.<sup>3</sup> did",
        "as Becker [2] wrote; Doe et al. [3] did",
    ),
    ("in water,<sup>13</sup>C-labelled", "in water,13C-labelled"),
    ("delta<sup>9</sup>-THC, gallium<sup>68</sup> scans", "delta^9-THC, gallium^68 scans"),
    (
        "(m<sup>6</sup>A-seq), m<sup>7</sup>G37, m<sup>6</sup>Am, ac<sup>4</sup>C",
        "(m6A-seq), m7G37, m6Am, ac4C",
    ),
    (
        "N<sup>6</sup>-methyladenosine, O<sup>6</sup> methylguanine, N<sup>6</sup>,2′-O",
        "N6-methyladenosine, O6 methylguanine, N6,2′-O",
    ),
    (
        "Δ<sup>9</sup>-THC, (η<sup>6</sup>-arene), δ<sup>15</sup>N and Δ<sup>14</sup>C",
        "Δ9-THC, (η6-arene), δ15N and Δ14C",
    ),
    ("cells</b> <b>Route", "cells Route"),
]


@pytest.mark.parametrize(("markup", "plain"), POWERS + OTHERS)
def test_superscripts(markup, plain):
    text = f"<t><b>{markup}</b></t>" if "</b> <b>" in markup else f"<t>{markup}</t>"
    assert plain_text(etree.fromstring(text)) == plain


@pytest.mark.parametrize(
    ("formula", "plain"),
    [
        ("<msup><mn>10</mn><mrow><mo>−</mo><mn>8</mn></mrow></msup>", "10^−8"),
        ("<msup><mi>e</mi><mrow><mo>-</mo><mi>kt</mi></mrow></msup>", "e^-kt"),
        (
            "<msup><mi>x</mi><mrow><mi>n</mi><mo>(</mo><mn>1</mn><mo>)</mo></mrow></msup>",
            "x^(n(1))",
        ),
        ("<msup><mi>Ca</mi><mrow><mn>2</mn><mo>+</mo></mrow></msup>", "Ca2+"),
        ("<msup><mi>x</mi><mo>*</mo></msup>", "x*"),
    ],
)
def test_exponents_of_formulas(formula, plain):
    assert math(etree.fromstring(f'<math xmlns="{MATHML[1:-1]}">{formula}</math>')) == plain


FORMATS = [
    (
        MedlineReader,
        "a.xml",
        "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID>"
        "<Article><ArticleTitle>T</ArticleTitle><Abstract>"
        '<AbstractText Label="">{}</AbstractText></Abstract></Article>'
        "</MedlineCitation></PubmedArticle></PubmedArticleSet>",
        "sup",
    ),
    (JatsReader, "a.nxml", "<article><body><p>{}</p></body></article>", "sup"),
    (
        TeiReader,
        "a.tei",
        '<TEI xmlns="http://www.tei-c.org/ns/1.0"><text><body><p>{}</p></body></text></TEI>',
        'hi rend="superscript"',
    ),
]


@pytest.mark.parametrize(("reader", "name", "frame", "sup"), FORMATS)
def test_the_same_in_every_format(tmp_path, reader, name, frame, sup):
    for markup, plain in POWERS[:6] + POWERS[8:12] + POWERS[-5:-1] + OTHERS[:3]:
        written = (
            markup.replace("<sup>", f"<{sup}>")
            .replace("</sup>", f"</{sup.split()[0]}>")
            .replace("<i>", "")
            .replace("</i>", "")
        )
        (tmp_path / name).write_text(frame.format(written))
        [document], _, _ = partial(read_raw, reader)(tmp_path / name)
        assert document.text.split("\n\n")[-1] == plain


@pytest.mark.parametrize(("reader", "name", "frame", "sup"), FORMATS)
def test_controls_of_windows_1252(tmp_path, reader, name, frame, sup):
    head = "<?xml version='1.0' encoding='iso-8859-1'?>"
    (tmp_path / name).write_bytes(
        (head + frame.format("\x93caf\xe9\x94 \x96 5\x85 &#x92;")).encode("latin-1")
    )
    [document], _, _ = read_raw(reader, tmp_path / name)
    assert document.text.split("\n\n")[-1] == "“café” – 5… ’"
