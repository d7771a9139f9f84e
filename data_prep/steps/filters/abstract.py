"""Documents without text, or with a title alone."""

from typing import Literal

from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, StepSettings
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class AbstractSettings(StepSettings):
    """Drop documents without text and, if `required`, those that are only a title."""

    step: Literal["abstract"] = "abstract"
    required: bool = True
    """Drop documents that have only a title."""


class AbstractFilter(DocumentFilter[AbstractSettings]):
    """Drops documents without any text and, if `required`, those that are only a title."""

    name = "abstract"
    Settings = AbstractSettings

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        if not doc.text:
            return False, "no text"
        if self.settings.required and doc.text == doc.metadata["title"]:
            return False, "no abstract"
        return True
