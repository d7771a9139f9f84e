"""Documents by length."""

from typing import Literal

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, PerSourceSettings
from data_prep.text.words import count_words
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class LengthSettings(PerSourceSettings):
    """Drop documents by their number of words (Chinese, Japanese: half the characters)."""

    step: Literal["length"] = "length"
    min_words: int = Field(default=20, ge=0)
    """Fewest words."""

    max_words: int | None = Field(default=None, ge=1)
    """Most words."""


class LengthFilter(DocumentFilter[LengthSettings]):
    """Drops documents with too few or too many words."""

    name = "length"
    Settings = LengthSettings

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        words = count_words(doc.text)
        if words < self.settings.min_words:
            return False, "too short"
        if self.settings.max_words is not None and words > self.settings.max_words:
            return False, "too long"
        return True
