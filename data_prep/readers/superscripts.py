"""Superscripts as plain text, so that no number changes its value.

- A number that follows a number, a letter or a closing bracket is a power and gets a caret:
  `10^6`, `10^-4`, `10^3–4`, `10^6.5`, `m^2`. So does an exponent in letters behind a number:
  `10^n`, `2^-ΔΔCt`. Directly behind 10, what begins with a number is a power whatever follows in
  it: `10^6/mL`, `10^6 cells`.
- White space before it is no hindrance where the power is certain: behind 10 ("5 x 10
  <sup>6</sup>"), before a minus sign, behind a unit. A mass number stays with its element: "202
  <sup>1</sup>H".
- A list or range behind a word, a number behind a word of small letters, and one behind the end of
  a sentence or a decimal sign ("as shown.<sup>12</sup>", "in 2010.<sup>12</sup>") is a citation: `
  [12,13]`.
- A position in a molecule and a mass number behind a symbol are part of a name: "m6A",
  "N6-methyladenosine", "Δ9-THC", "δ15N".
- All else is its text: "CD4+", "Ca2+", "18F", "5th".
"""

import re
from collections.abc import Callable

from data_prep.readers.xml_tree import Element, inline_text, text_after

JOINED = "\ue003"
"""Precedes a caret that removes the white space before it.

A private-use character; `markup.clean` resolves it.
"""

_MINUS = "-\u00ad‐‑‒–—―−─－"  # whatever is used as one, also a soft hyphen and a line for boxes
_SIGN = f"[{_MINUS}+±~∼≈<>≤≥]"
_VALUE = rf"{_SIGN}?\s?(?:\d+(?:[.,·∙⋅•/]\d+)*|[.·∙⋅•]\d+)"
_BETWEEN = rf"(?:[{_MINUS}~±,;]|to|or)"
_NUMBER = re.compile(rf"{_VALUE}(?:\s*{_BETWEEN}\s*{_VALUE})*")
_NUMBER_FIRST = re.compile(rf"\(?{_VALUE}(?P<next>.?)")
"""A power of ten with more behind it in its superscript: "6/mL", "6 cells", "11 (11)", "5-"."""
_SEVERAL = re.compile(rf"\d\s*{_BETWEEN}\s*\d")
_SYMBOLS = re.compile(rf"\(?[{_MINUS}]\s?\(?(?:[^\W\d_]|∆)[\w.·∆]*\)?|\d*[knxN](?:{_SIGN}\d+)?")
_NEGATIVE = re.compile(f"[{_MINUS}]")
_PLAIN_NUMBER = re.compile(r"(?:^|[^\w.,]|(?<=\d)[xX])\d+(?:[.,·]\d+)?$")
_TEN = re.compile(r"(?:^|[^\d.,·])10$")
_E = re.compile(r"(?:^|[^\w])(?:e|exp)$")
_WORD = re.compile(r"[^\W\d_]{4,}$")
# A word as in prose: no unit or quantity, no letter's name ("delta<sup>9</sup>"), no symbol of a
# gene or residue ("APOE<sup>4</sup>")
_PROSE = re.compile(
    r"(?:^|[\s(\[\"“‘'-])(?!(?i:\w*met(?:er|re)|inch|foot|feet|yard|mile|second|minute|hour|degree|pixel|voxel|height|length|width|depth|"
    r"weight|mass|time|distance|radius|diameter|velocity|speed|alpha|beta|gamma|delta|epsilon|theta|kappa|lambda|omega|sigma|"
    r"\w+ium|carbon|iodine|fluorine|oxygen|nitrogen|hydrogen)s?$)"
    r"[^\W\d_][a-zß-öø-ÿ]{3,}[\"”’)\]]?$"
)
_SENTENCE_ENDS = re.compile(r"(?:[^\W\d_]{3}|\bal|[)\]”’\"%])[.,;:!?][\"”’)\]]?$")
_CONTINUES = re.compile(r"[-‐‑–−\w(\[]")
_DECIMAL = re.compile(r"\d[.,]$")
_UNIT = re.compile(r"(?:^|[^^\w])(?:[cdkmnpuµμ]?m|R|r|X|x|I|χ|chi|Chi|η|ω|σ|τ|(?<=/)s)$")
_ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br"
    " Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho"
    " Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm D"
)
_NUCLEOSIDE = re.compile(r"(?:^|[^\w/])(?:m|M|hm|ac|f|s|i|t|g|ca)$")
"""Groups bound to a nucleoside, whose letter follows.

"m<sup>6</sup>A", "ac<sup>4</sup>C", but not "W/m<sup>2</sup>".
"""
_NUCLEOSIDE_BEHIND = re.compile(r"[ACGUTIΨ]m?(?![a-z])")
_ATOM = re.compile(r"(?:^|[^\w/])(?:[NOCS]|[Δ∆δη])$")
"""An atom or bond with its position: "N<sup>6</sup>-methyladenosine"."""
_ATOM_BEHIND = re.compile(r"\s?[-‐‑]\s?[^\W\d_]|\s?(?:methyl|benzyl|alkyl)|,\s?[NOCS2-9]")
_DELTA = re.compile(r"(?:^|[^\w])[Δ∆δ]$")
_ISOTOPE = re.compile(
    rf"[\[(]?(?:{'|'.join(sorted(_ELEMENTS.split(), key=len, reverse=True))})(?![a-zA-Z])"
)


def superscript(raised: str, before: str, element: Element | None = None) -> str:
    """Return raised text as it follows the text `before`.

    Args:
        raised: the text of the superscript.
        before: the text before it, in the same paragraph.
        element: the superscript, for the text behind it; None without one.
    """
    inner = raised.strip()
    base = before.rstrip()
    if not inner or not base:
        return raised
    trailing = " " if raised[-1:].isspace() else ""
    touches = base == before
    if _NUMBER.fullmatch(inner):
        if touches and _is_citation(inner, base, element):
            return f" [{inner}]{trailing}"
        if touches and _is_in_name(inner, base, element):
            return raised
        is_power = _can_carry_power(base) if touches else _is_power(inner, base, element)
    elif _SYMBOLS.fullmatch(inner):
        is_power = _is_symbolic_power(inner, base, touches)
    elif _NEGATIVE.fullmatch(inner):
        behind = "" if element is None else text_after(element)
        is_power = _TEN.search(base) is not None and behind[:1].isdecimal()  # "10<sup>-</sup>8"
    else:
        is_power = _begins_with_power(inner, base, touches)
    return f"{JOINED}^{inner}{trailing}" if is_power else raised


def _begins_with_power(inner: str, base: str, touches: bool) -> bool:
    """Return whether a text that begins with a number is a power of ten.

    Behind white space "18F" is an isotope, "6/mL" a power.
    """
    number = _NUMBER_FIRST.match(inner)
    if number is None or _TEN.search(base) is None:
        return False
    return touches or number["next"] == "/"


def _can_carry_power(base: str) -> bool:
    """Return whether a power can directly follow a text."""
    return base[-1].isalnum() or base[-1] in ")]}"


def _is_symbolic_power(inner: str, base: str, touches: bool) -> bool:
    """Return whether an exponent in letters follows a number, or e."""
    is_negative = _NEGATIVE.match(inner) is not None
    if _PLAIN_NUMBER.search(base):
        return touches or is_negative or _TEN.search(base) is not None
    return touches and is_negative and _E.search(base) is not None


def _is_in_name(inner: str, base: str, element: Element | None) -> bool:
    """Return whether a number directly behind a text is part of a molecule's or isotope's name."""
    if element is None or not inner.isdecimal():
        return False
    behind = text_after(element)
    pairs = ((_NUCLEOSIDE, _NUCLEOSIDE_BEHIND), (_ATOM, _ATOM_BEHIND), (_DELTA, _ISOTOPE))
    return any(before.search(base) and after.match(behind) for before, after in pairs)


def _is_citation(inner: str, base: str, element: Element | None) -> bool:
    """Return whether a number directly behind a text cites works.

    It does as a list behind a word or bracket, and as any number behind prose.
    """
    behind = "" if element is None else text_after(element)
    if _DECIMAL.search(base):
        return not _NEGATIVE.match(inner)
    if _SENTENCE_ENDS.search(base) and not _ISOTOPE.match(behind):
        return not _NEGATIVE.match(inner)
    is_single = element is not None and inner.isdecimal()
    if is_single and _PROSE.search(base) and not _CONTINUES.match(behind):
        return True
    if _SEVERAL.search(inner) is None:
        return False
    return _WORD.search(base) is not None or base[-1] in ")]}"


def _is_power(inner: str, base: str, element: Element | None) -> bool:
    """Return whether a number behind white space is a power all the same."""
    if element is not None and _ISOTOPE.match(text_after(element)):
        return False
    if _NEGATIVE.match(inner):
        return _can_carry_power(base)
    if _TEN.search(base):
        return True
    return inner in ("2", "3", "4") and _UNIT.search(base) is not None


def superscript_text(
    element: Element,
    one: Callable[[Element, str], str],
    is_raised: Callable[[Element], bool],
    before: str,
) -> str:
    """Return a superscript element as plain text.

    Adjacent superscripts are read as one with it ("10", "-", "8").
    """
    previous = element.getprevious()
    if previous is not None and is_raised(previous) and _continues(previous):
        return ""  # read with the one before
    text = inline_text(element, one)
    while _continues(element):
        following = element.getnext()
        if following is None or not is_raised(following):
            break
        element = following
        text += inline_text(element, one)
    return superscript(text, before, element)


def _continues(element: Element) -> bool:
    """Return whether the next superscript is one with this.

    It is if it touches this one, or if this one is a minus sign alone.
    """
    if not element.tail:
        return True
    is_minus = _NEGATIVE.fullmatch((element.text or "").strip()) is not None
    return is_minus and not element.tail.strip()
