"""Retracted articles teach what is not so."""

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter


class RetractionFilter(BaseFilter):
    """Drops retracted articles and retraction notices.

    Retracted articles are found by publication type or by the link to their retraction.
    """

    name = "retraction"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        types = doc.metadata["publication_types"]
        if doc.metadata["retracted"] or "Retracted Publication" in types:
            return False, "retracted article"
        return "Retraction of Publication" not in types or (False, "retraction notice")
