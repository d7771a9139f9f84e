"""Sentence splitting by rules and lists of abbreviations for many languages, without downloads.

By the sentencex library.
"""

import re
from dataclasses import dataclass

from galen.errors import DataError

WIDE_SPACE = re.compile(r"[^\S\t\n\v\f\r ]")
"""White space of more than one byte.

sentencex 1.0.32 breaks off at some of it after a capital letter, so it gets a plain space instead.
"""


@dataclass(frozen=True, slots=True)
class SentenceSplitter:
    """Cuts texts into sentences."""

    language: str = "en"
    """Two or three letters (ISO 639).

    A language that sentencex has no rules for is cut as one like it, or as English.
    """

    keep_newlines: bool = False
    """Keep the white space between sentences, at the end of the one before.

    Joined, they are then the text. Otherwise it is left out.
    """

    def split(self, text: str) -> list[str]:
        """Return the sentences of a text.

        None of them is empty or only white space, unless that is all the text has.

        Raises:
            DataError: the library cannot cut this text.
        """
        segments = self._segments(text)
        if not self.keep_newlines:
            stripped = [segment.strip() for segment in segments]
            return [segment for segment in stripped if segment]
        sentences: list[str] = []
        for segment in segments:
            if sentences and (segment.isspace() or sentences[-1].isspace()):
                sentences[-1] += segment
            else:
                sentences.append(segment)
        return sentences

    def _segments(self, text: str) -> list[str]:
        """Return the library's sentences, made of the characters of `text`."""
        import sentencex

        plain = text if text.isascii() else WIDE_SPACE.sub(" ", text)
        try:
            plain_segments = sentencex.segment(self.language, plain)
        except BaseException as error:
            # how a mistake in the Rust code arrives; it is no Exception
            if type(error).__name__ != "PanicException":
                raise
            raise DataError(
                f"sentencex cannot cut the text that begins with {text[:60]!r}: {error}"
            ) from None
        if "".join(plain_segments) != plain:
            raise DataError(
                f"sentencex changes the text that begins with {text[:60]!r}; it cannot be cut into"
                " sentences"
            )
        segments = []
        start = 0
        for segment in plain_segments:
            segments.append(text[start : start + len(segment)])
            start += len(segment)
        return segments
