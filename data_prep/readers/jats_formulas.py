"""The plain text of the formulas in a JATS article."""

from data_prep.readers.markup import clean, math
from data_prep.readers.tex import tex_formula
from data_prep.readers.xml_tree import MATHML, Element, tag_of

FORMULA_TAGS = {
    "inline-formula", "tex-math", "alternatives", "inline-alternatives", "chem-struct",
}  # fmt: skip
"""Inline elements that hold a formula, besides those of MathML."""


def is_formula(element: Element) -> bool:
    """Return whether an inline element is or holds a formula."""
    return str(element.tag).startswith(MATHML) or tag_of(element) in FORMULA_TAGS


def tex_text(element: Element) -> str:
    """Return an element's formulas in TeX, "" without one."""
    formulas = [tex_formula(tex) for tex in element.iter("tex-math")]
    return " ".join(formula for formula in formulas if formula)


def mathml_text(element: Element) -> str:
    """Return an element's first MathML formula as plain characters, with the text around it.

    "" without one.
    """
    formula: Element | None = element
    if not str(element.tag).startswith(MATHML):
        formula = next(element.iter(f"{MATHML}math"), None)
    if formula is None:
        return ""
    text = math(formula).strip()
    if not text:
        return ""
    if formula.getparent() is not element:
        return clean(f" {text} ")
    return clean(f"{_text_before(element, formula)} {text} {_text_after(formula)}")


def image_text(element: Element) -> str:
    """Return the text for readers who do not see an image, "" without one."""
    return " ".join((element.findtext(".//alt-text") or "").split())


def _text_before(element: Element, formula: Element) -> str:
    """Return the text of a formula element before its MathML child, without that of others."""
    tails = [child.tail or "" for child in formula.itersiblings(preceding=True)]
    return " ".join([element.text or "", *tails])


def _text_after(formula: Element) -> str:
    """Return the text behind a MathML element in its formula element, without that of others."""
    tails = [child.tail or "" for child in formula.itersiblings()]
    return " ".join([formula.tail or "", *tails])
