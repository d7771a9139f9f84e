"""Articles by publication type."""

from typing import Literal

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, StepSettings
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class PublicationTypeSettings(StepSettings):
    """Drop articles of the given publication types."""

    step: Literal["publication_type"] = "publication_type"
    drop: list[str] = Field(min_length=1)
    """Publication types as MEDLINE writes them, for example Editorial, Comment, Preprint."""


class PublicationTypeFilter(DocumentFilter[PublicationTypeSettings]):
    """Drops articles with one of the given publication types."""

    name = "publication_type"
    Settings = PublicationTypeSettings

    def __init__(
        self, settings: PublicationTypeSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.dropped = {name.casefold() for name in settings.drop}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        for name in doc.metadata.get("publication_types") or ():
            if name.casefold() in self.dropped:
                return False, name
        return True
