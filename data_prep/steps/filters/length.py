"""Documents by length."""

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.text.words import count_words


class LengthFilter(BaseFilter):
    """Drops documents with too few or too many words."""

    name = "length"

    def __init__(self, min_words: int, max_words: int | None) -> None:
        super().__init__()
        self.min_words, self.max_words = min_words, max_words

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        words = count_words(doc.text)
        if words < self.min_words:
            return False, "too short"
        return self.max_words is None or words <= self.max_words or (False, "too long")
