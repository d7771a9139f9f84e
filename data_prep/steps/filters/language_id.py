"""Texts by their language, as `language_identification` finds it."""

from typing import Literal

from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, Fraction, PerSourceSettings
from data_prep.text.language_identification import CANDIDATES, known_languages, language_fractions
from galen.errors import UsageError
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class LanguageIdSettings(PerSourceSettings):
    """Identify the language of the text, paragraph by paragraph.

    Drop documents in other languages or without a clear one.
    """

    step: Literal["language_id"] = "language_id"
    languages: list[str] | None = None
    """Languages to keep, codes of two letters; null keeps all and only records the language."""

    min_fraction: Fraction = 0.5
    """Fraction of the letters that must be in the document's main language."""

    candidates: list[str] | None = None
    """Languages to distinguish, besides those of `languages`.

    null takes the twenty of data_prep/text/language_identification.py.
    """


class LanguageIdFilter(DocumentFilter[LanguageIdSettings]):
    """Records the language of documents and drops those in other languages.

    It goes to `text_language`, and to `text_languages` with fractions if there are several.
    """

    name = "language_id"
    Settings = LanguageIdSettings

    def __init__(
        self, settings: LanguageIdSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        candidates = [*(settings.candidates or CANDIDATES), *(settings.languages or ())]
        self.candidates = tuple(dict.fromkeys(candidates))
        if unknown := set(self.candidates) - known_languages():
            raise UsageError(
                f"language_id: {', '.join(sorted(unknown))} cannot be identified; known are"
                f" {', '.join(sorted(known_languages()))}"
            )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        fractions = language_fractions(doc.text, self.candidates)
        if not fractions:
            return False, "no letters"
        language, fraction = next(iter(fractions.items()))
        doc.metadata["text_language"] = language
        if len(fractions) > 1:
            doc.metadata["text_languages"] = {
                name: round(value, 3) for name, value in fractions.items()
            }
        if fraction < self.settings.min_fraction:
            return False, "no main language"
        if self.settings.languages is not None and language not in self.settings.languages:
            return False, f"other language ({language})"
        return True
