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
_CONDITIONS = re.compile("BY|NC|SA|ND", re.IGNORECASE)
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
        if address := _ADDRESS.search(statement):
            return _of_address(address)
    for statement in stated:
        if short := _SHORT.search(statement):
            return _of_short_name(short)
        if words := _WORDS.search(statement):
            return _of_words(words)
    if any(_PUBLIC.search(statement) for statement in stated):
        return PUBLIC_DOMAIN
    return OTHER if stated else ""


def _of_address(address: re.Match[str]) -> str:
    """Return the name of the license at an address of Creative Commons."""
    conditions, version, public_tool, tool_version = address.groups()
    if public_tool is None:
        return _name(conditions, version)
    return f"CC0-{tool_version}" if public_tool.lower() == "zero" else PUBLIC_DOMAIN


def _of_short_name(short: re.Match[str]) -> str:
    """Return the name of a license from one like "CC BY-NC 4.0"."""
    conditions, version = short.groups()
    if conditions == "0":
        return f"CC0-{version or '1.0'}"
    return _name("-".join(_CONDITIONS.findall(conditions)), version)


def _of_words(words: re.Match[str]) -> str:
    """Return the name of a license from its name in words."""
    if "dedication" in words[0].lower():
        return "CC0-1.0"
    conditions = ["by"]
    for short, word in (("nc", "commercial"), ("sa", "alike"), ("nd", "deriv")):
        if word in words[1].lower():
            conditions.append(short)
    return _name("-".join(conditions), words[2])


def _name(conditions: str, version: str | None) -> str:
    conditions = conditions.upper()
    if conditions.startswith("BY-ND-NC"):  # the order of version 1.0
        conditions = "BY-NC-ND"
    return f"CC-{conditions}-{version}" if version else f"CC-{conditions}"
