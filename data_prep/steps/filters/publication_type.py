"""Articles by publication type."""

from collections.abc import Sequence

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter


class PublicationTypeFilter(BaseFilter):
    """Drops articles with one of the given publication types."""

    name = "publication_type"

    def __init__(self, drop: Sequence[str]) -> None:
        super().__init__()
        self.unwanted = {kind.casefold() for kind in drop}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        found = next(
            (
                kind
                for kind in doc.metadata.get("publication_types") or ()
                if kind.casefold() in self.unwanted
            ),
            None,
        )
        return found is None or (False, found)
