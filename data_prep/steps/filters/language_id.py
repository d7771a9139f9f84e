"""Keep texts written in the wanted languages, as `language_identification` finds them."""

from collections.abc import Sequence

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.text.language_identification import CANDIDATES, known_languages, language_shares
from galen.errors import UsageError


class LanguageIdFilter(BaseFilter):
    """Notes the language of documents and drops unwanted ones.

    It goes to `text_language`, and to `text_languages` with shares if there are several.
    """

    name = "language_id"

    def __init__(
        self, languages: Sequence[str] | None, min_fraction: float, candidates: Sequence[str] | None
    ) -> None:
        super().__init__()
        self.languages, self.min_fraction = languages, min_fraction
        self.candidates = tuple(dict.fromkeys([*(candidates or CANDIDATES), *(languages or ())]))
        if unknown := set(self.candidates) - known_languages():
            raise UsageError(
                f"language_id: {', '.join(sorted(unknown))} cannot be identified; known are"
                f" {', '.join(sorted(known_languages()))}"
            )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        shares = language_shares(doc.text, self.candidates)
        if not shares:
            return False, "no letters"
        language, share = next(iter(shares.items()))
        doc.metadata["text_language"] = language
        if len(shares) > 1:
            doc.metadata["text_languages"] = {name: round(part, 3) for name, part in shares.items()}
        if share < self.min_fraction:
            return False, "no main language"
        return (
            self.languages is None
            or language in self.languages
            or (False, f"not wanted ({language})")
        )
