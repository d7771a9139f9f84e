"""Retracted articles and retraction notices."""

from typing import Literal

from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, StepSettings
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class RetractionSettings(StepSettings):
    """Drop retracted articles and retraction notices."""

    step: Literal["retraction"] = "retraction"


class RetractionFilter(DocumentFilter[RetractionSettings]):
    """Drops retracted articles and retraction notices.

    Retracted articles are found by publication type or by the link to their retraction.
    """

    name = "retraction"
    Settings = RetractionSettings

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        types = doc.metadata["publication_types"]
        if doc.metadata["retracted"] or "Retracted Publication" in types:
            return False, "retracted article"
        if "Retraction of Publication" in types:
            return False, "retraction notice"
        return True
