"""Documents need something to read."""

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter


class AbstractFilter(BaseFilter):
    """Drops documents without any text and, if `required`, those that are only a title."""

    name = "abstract"

    def __init__(self, required: bool) -> None:
        super().__init__()
        self.required = required

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        if not doc.text:
            return False, "no text"
        if self.required and doc.text == doc.metadata["title"]:
            return False, "no abstract"
        return True
