"""Studies of animals alone."""

from typing import Literal

from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, StepSettings
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class AnimalOnlySettings(StepSettings):
    """Drop studies of animals alone.

    MeSH heading Animals without Humans, or a veterinary publication type.
    """

    step: Literal["animal_only"] = "animal_only"


class AnimalOnlyFilter(DocumentFilter[AnimalOnlySettings]):
    """Drops articles with the MeSH heading Animals and without Humans, and veterinary articles.

    Veterinary articles are found by their publication type.

    MEDLINE's indexers put one of these check tags, or both, on nearly every article; records not
    indexed yet have none and stay.
    """

    name = "animal_only"
    Settings = AnimalOnlySettings

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        headings = {heading["name"] for heading in doc.metadata.get("mesh") or ()}
        if any("Veterinary" in name for name in doc.metadata.get("publication_types") or ()):
            return False, "veterinary"
        if "Animals" in headings and "Humans" not in headings:
            return False, "animals without humans"
        return True
