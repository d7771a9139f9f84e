"""One name per license, in SPDX's form ("CC-BY-4.0"), from the addresses and texts in articles.

Creative Commons addresses: https://creativecommons.org/licenses/. A bare "CC BY" without a version
is "CC-BY". What states no known license is "other" (a license of its own) or "" (nothing stated):
neither permits anything.
"""

import re

PUBLIC_DOMAIN = "public-domain"
OTHER = "other"

_ADDRESS = re.compile(
    r"creativecommons\.org/(?:licen[sc]es/([a-z-]+)(?:/(\d\.\d))?|publicdomain/(zero|mark)/(\d\.\d))",
    re.IGNORECASE,
)
_SHORT = re.compile(
    r"\bCC[ -]?(BY(?:[ -]?(?:NC|SA|ND))*|0)(?:[ -]*v?(\d\.\d))?(?![a-z])", re.IGNORECASE
)
_PARTS = re.compile("BY|NC|SA|ND", re.IGNORECASE)
_WORDS = re.compile(
    r"creative commons (?:public domain dedication|attribution)((?:[-"
    r" ]*(?:non-?commercial|no-?deriv\w*|share[- ]?alike))*)"
    r"(?:[^.;]{0,40}?(\d\.\d))?",
    re.IGNORECASE,
)
_PUBLIC = re.compile(
    r"public[ -]domain|not (?:subject to|under) copyright|\bCC0\b|publicdomain", re.IGNORECASE
)


def license_name(*statements: str | None) -> str:
    """Return the name of the license that the statements (addresses first, then sentences) name."""
    stated = [statement for statement in statements if statement and statement.strip()]
    for statement in stated:
        if found := _ADDRESS.search(statement):
            if found[3]:
                return f"CC0-{found[4]}" if found[3].lower() == "zero" else PUBLIC_DOMAIN
            return _name(found[1], found[2])
    for statement in stated:
        if found := _SHORT.search(statement):
            return (
                f"CC0-{found[2] or '1.0'}"
                if found[1] == "0"
                else _name("-".join(_PARTS.findall(found[1])), found[2])
            )
        if found := _WORDS.search(statement):
            if "dedication" in found[0].lower():
                return "CC0-1.0"
            lower = found[1].lower()
            parts = ["by"] + [
                short
                for short, word in (("nc", "commercial"), ("sa", "alike"), ("nd", "deriv"))
                if word in lower
            ]
            return _name("-".join(parts), found[2])
    if any(_PUBLIC.search(statement) for statement in stated):
        return PUBLIC_DOMAIN
    return OTHER if stated else ""


def _name(kind: str, version: str | None) -> str:
    kind = kind.upper()
    if kind.startswith("BY-ND-NC"):  # the order of version 1.0
        kind = "BY-NC-ND"
    return f"CC-{kind}-{version}" if version else f"CC-{kind}"
