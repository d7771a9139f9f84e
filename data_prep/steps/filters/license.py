"""Which licenses let an article in."""

import re
from collections.abc import Sequence
from typing import Literal

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

_VERSION = re.compile(r"[ -]v?\d+(\.\d+)*$")


def family(license: str) -> str:
    """Return a license's name without its version, in one form.

    "CC BY-SA 4.0", "cc-by-sa" and "CC-BY-SA-4.0" are all "CC-BY-SA".
    """
    name = re.sub(r"[\s_]+", "-", _VERSION.sub("", license.strip())).upper()
    return "CC0" if name in ("CC0", "CC-0", "CC-ZERO") else name


class LicenseFilter(BaseFilter):
    """Drops documents whose license (`license` in the metadata) is none of the allowed.

    Versions do not count.
    """

    name = "license"

    def __init__(self, allowed: Sequence[str], if_missing: Literal["drop", "keep"]) -> None:
        super().__init__()
        self.allowed, self.if_missing = {family(name) for name in allowed}, if_missing

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        license = family(doc.metadata.get("license") or "")
        if license in ("", "OTHER"):
            return self.if_missing == "keep" or (
                False,
                "none stated" if not license else "a license of its own",
            )
        return license in self.allowed or (False, f"{license} not allowed")
