"""Keep articles written in the wanted languages."""

from collections.abc import Sequence

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter


class LanguageFilter(BaseFilter):
    """Drops documents whose record names none of the wanted languages (MEDLINE's codes of three letters).

    This is the language of the article. MEDLINE's abstract of a foreign article is mostly English; it goes with its article.
    """

    name = "language"

    def __init__(self, wanted: Sequence[str]) -> None:
        super().__init__()
        self.wanted = list(wanted)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        return any(language in self.wanted for language in doc.metadata["language"]) or (False, "not wanted")
