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

    def __init__(self, languages: Sequence[str]) -> None:
        super().__init__()
        self.languages = {medline_code(language) for language in languages}
        if wrong := [code for code in self.languages if len(code) != 3]:
            raise UsageError(
                f"language: languages: {', '.join(wrong)} is no language code such as eng or en"
            )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        return any(language in self.languages for language in doc.metadata["language"]) or (
            False,
            "not wanted",
        )
