"""Documents by their copyright line."""

import re
from typing import Literal

from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, PerSourceSettings
from galen.recipe import STRICT

Rule = Literal["any_claim", "explicit", "ignore"]

# "No claim to original U.S. Government Works" grants nothing; a work *in the public domain* does.
_GRANTED = re.compile(
    r"creative ?commons|\bCC[ -]?(BY|0)\b|public domain|not under copyright", re.IGNORECASE
)
_RESERVED = re.compile(
    r"rights? reserved|protected by copyright|exclusive (licen[cs]|rights)|for"
    r" permissions?|reprints and permission|all rights",
    re.IGNORECASE,
)


def reserves_rights(line: str, rule: Rule) -> bool:
    """Return whether this copyright line reserves rights.

    A line that names a Creative Commons license or the public domain never does. Any other line
    does under `any_claim`: a bare "© 2021 Publisher" grants nothing, so all rights are reserved by
    law. `explicit` requires words ("All rights reserved", "protected by copyright", "under
    exclusive license", "for permissions …"). `ignore` lets everything in.
    """
    if not line or rule == "ignore" or _GRANTED.search(line):
        return False
    return rule == "any_claim" or _RESERVED.search(line) is not None


@dataclass(kw_only=True, config=STRICT)
class CopyrightSettings(PerSourceSettings):
    """Drop abstracts by their copyright line."""

    step: Literal["copyright"] = "copyright"
    rule: Rule = "any_claim"
    """Which copyright lines drop an abstract.

    any_claim: each that names no Creative Commons license or public domain; explicit: only one that
    reserves rights in words; ignore: none.
    """


class CopyrightFilter(DocumentFilter[CopyrightSettings]):
    """Drops documents whose copyright line reserves rights.

    No line, as in most older records, reserves none.
    """

    name = "copyright"
    Settings = CopyrightSettings

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        if reserves_rights(doc.metadata["copyright"], self.settings.rule):
            return False, "rights reserved"
        return True
