"""Studies of animals alone."""

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter


class AnimalOnlyFilter(BaseFilter):
    """Drops articles with the MeSH heading Animals and without Humans, and veterinary articles.

    Veterinary articles are found by their publication type.

    MEDLINE's indexers put one of these check tags, or both, on nearly every article; records not
    indexed yet have none and stay.
    """

    name = "animal_only"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        headings = {heading["name"] for heading in doc.metadata.get("mesh") or ()}
        if any("Veterinary" in kind for kind in doc.metadata.get("publication_types") or ()):
            return False, "veterinary"
        return (
            "Animals" not in headings or "Humans" in headings or (False, "animals without humans")
        )
