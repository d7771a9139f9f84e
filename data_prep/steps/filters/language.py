"""Articles by the language in their record."""

from typing import Literal

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, StepSettings
from data_prep.text.language_codes import medline_code
from galen.errors import UsageError
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class LanguageSettings(StepSettings):
    """Keep articles by the language in their record (for that of the text see language_id)."""

    step: Literal["language"] = "language"
    languages: list[str] = Field(default_factory=lambda: ["eng"])
    """Codes of languages, MEDLINE's of three letters or ISO's of two."""


class LanguageFilter(DocumentFilter[LanguageSettings]):
    """Drops documents whose record names none of the languages (2- or 3-letter codes).

    This is the language of the article. MEDLINE's abstract of a foreign article is mostly English;
    it goes with its article.
    """

    name = "language"
    Settings = LanguageSettings

    def __init__(
        self, settings: LanguageSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.languages = {medline_code(language) for language in settings.languages}
        if wrong := [code for code in self.languages if len(code) != 3]:
            raise UsageError(
                f"language: languages: {', '.join(wrong)} is not a language code such as eng or en"
            )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        if any(language in self.languages for language in doc.metadata["language"]):
            return True
        return False, "other language"
