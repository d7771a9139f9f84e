"""Documents by the license of their article."""

import re
from typing import Literal

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, PerSourceSettings
from galen.recipe import STRICT

_VERSION = re.compile(r"[ -]v?\d+(\.\d+)*$")


def family(license: str) -> str:
    """Return a license's normalized name without its version.

    "CC BY-SA 4.0", "cc-by-sa" and "CC-BY-SA-4.0" are all "CC-BY-SA".
    """
    name = re.sub(r"[\s_]+", "-", _VERSION.sub("", license.strip())).upper()
    return "CC0" if name in ("CC0", "CC-0", "CC-ZERO") else name


@dataclass(kw_only=True, config=STRICT)
class LicenseSettings(PerSourceSettings):
    """Keep documents by the license of their article."""

    step: Literal["license"] = "license"
    allowed: list[str] = Field(
        default_factory=lambda: ["CC0", "CC-BY", "CC-BY-SA", "CC-BY-ND", "public-domain"]
    )
    """Allowed licenses.

    The default is the set of Creative Commons licenses that allow commercial use, as BioMistral's
    corpus has.
    """

    if_missing: Literal["drop", "keep"] = "drop"
    """Documents without a known license."""


class LicenseFilter(DocumentFilter[LicenseSettings]):
    """Drops documents whose license (`license` in the metadata) is none of the allowed.

    Versions do not count.
    """

    name = "license"
    Settings = LicenseSettings

    def __init__(
        self, settings: LicenseSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.allowed = {family(name) for name in settings.allowed}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        license = family(doc.metadata.get("license") or "")
        if license in ("", "OTHER"):
            if self.settings.if_missing == "keep":
                return True
            return False, "custom license" if license else "no license stated"
        if license not in self.allowed:
            return False, f"{license} not allowed"
        return True
