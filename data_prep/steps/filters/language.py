"""Keep articles written in the wanted languages."""

from collections.abc import Sequence

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.text.language_codes import medline_code
from galen.errors import UsageError


class LanguageFilter(BaseFilter):
    """Drops documents whose record names none of the wanted languages (2- or 3-letter codes).

    This is the language of the article. MEDLINE's abstract of a foreign article is mostly English;
    it goes with its article.
    """

    name = "language"

    def __init__(self, wanted: Sequence[str]) -> None:
        super().__init__()
        self.wanted = {medline_code(language) for language in wanted}
        if wrong := [code for code in self.wanted if len(code) != 3]:
            raise UsageError(
                f"language: wanted: {', '.join(wrong)} is no code of a language such as eng or en"
            )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        return any(language in self.wanted for language in doc.metadata["language"]) or (
            False,
            "not wanted",
        )
