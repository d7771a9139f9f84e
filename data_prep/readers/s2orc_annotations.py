"""Text with stand-off annotations, as S2ORC has it: spans of the text say what is a header, a citation, a figure, an author.

An annotation's value is a list of `{start, end, attributes}` or that list as a JSON string. Offsets count characters; where one lies behind
the last character they are taken for bytes of UTF-8.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from data_prep.readers.forms import Forms, heading, tidy
from data_prep.readers.options import ReaderOptions

_LEFT_OUT = ("author", "authorfirstname", "authorlastname", "authoraffiliation", "bibentry", "publisher", "venue", "title")
_MAIN = re.compile(
    r"abstract|introduction|background|(materials? and )?methods?|results?( and discussion)?|discussions?|conclusions?", re.IGNORECASE
)


class Span(NamedTuple):
    """One annotation."""

    start: int
    end: int
    attributes: dict[str, Any]


class AnnotatedText:
    """One record's text.

    Args:
        content: `{"text", "annotations"}`.
        options: of the source.
        bibliography: the same for the bibliography, where it is a text of its own.
    """

    def __init__(self, content: dict[str, Any], options: ReaderOptions, bibliography: dict[str, Any] | None = None) -> None:
        self.text, self.spans = _load(content)
        self.forms = Forms(options)
        text, spans = _load(bibliography) if bibliography else (self.text, self.spans)
        self.works = {str(entry.attributes.get("id")): _work(text, spans, entry) for entry in spans.get("bibentry", [])}
        self.captions = {str(span.attributes.get("id")): self._caption(span) for span in self._of("figure", "table")}

    def _of(self, *names: str) -> list[Span]:
        return [span for name in names for span in self.spans.get(name, [])]

    def _at(self, span: Span) -> str:
        return " ".join(self.text[span.start : span.end].split())

    def title(self) -> str:
        """Return the title, "" if none is marked."""
        return next(map(self._at, self._of("title")), "")

    def _caption(self, figure: Span) -> str:
        inner = [span for span in self._of("figurecaption", "tablecaption") if figure.start <= span.start and span.end <= figure.end]
        return " ".join(map(self._at, inner))

    def blocks(self) -> list[str]:
        """Return abstract and body as Markdown blocks; what stands before both is left out."""
        starts = [span.start for span in self._of("abstract", "sectionheader")]
        begin = min(starts) if starts else max((span.end for span in self._of("title")), default=0)
        changes = [(span.start, span.end, "\n\n") for span in self._of(*_LEFT_OUT)]
        changes += [
            (span.start, span.start, f"\n\n{heading(1, 'Abstract')}\n\n") for span in self._of("abstract") if not self._headed(span)
        ]
        changes += [(span.start, span.end, f"\n\n{self._header(span)}\n\n") for span in self._of("sectionheader")]
        changes += [(span.start, span.start, "\n\n") for span in self._of("paragraph")]
        for span in self._of("figure", "table"):
            kind = "table" if span.attributes.get("type") == "table" or span in self.spans.get("table", []) else "fig"
            changes.append((span.start, span.end, f"\n\n{self.forms.floating(kind, '', self._caption(span))}\n\n"))
        for span in self._of("figureref", "tableref"):
            caption = self.captions.get(str(span.attributes.get("ref_id")), "")
            changes.append((span.start, span.end, self.forms.reference(self._at(span), caption)))
        for span in self._of("bibref"):
            work = self.works.get(str(span.attributes.get("ref_id")))
            changes.append((span.start, span.end, self.forms.citation(self._at(span), [work] if work else [])))
        changes += [(span.start, span.end, self.forms.formula(self._at(span))) for span in self._of("formula")]
        blocks = re.split(r"\n\s*\n", replaced(self.text, changes, begin))
        return [text for block in blocks if (text := tidy(" ".join(block.split())))]

    def _headed(self, abstract: Span) -> bool:
        return any(abs(span.start - abstract.start) < 20 and "abstract" in self._at(span).lower() for span in self._of("sectionheader"))

    def _header(self, span: Span) -> str:
        number, name = str(span.attributes.get("n") or "").strip().rstrip("."), self._at(span)
        depth = len(number.split(".")) if number else 1 if _MAIN.fullmatch(name.strip(" .:")) else 2
        return heading(depth, name if not number or name.startswith(number) else f"{number} {name}")


def replaced(text: str, changes: Iterable[tuple[int, int, str]], begin: int = 0) -> str:
    """Return the text from `begin` with each (start, end, replacement) put in.

    A change inside an earlier one is passed over; an insertion (start = end) never hides a change at the same place.
    """
    parts, position = [], begin
    for start, end, new in sorted(changes, key=lambda change: (change[0], change[1] != change[0], -change[1])):
        if start >= position:
            parts += [text[position:start], new]
            position = max(end, position)
    return "".join([*parts, text[position:]])


def _load(content: dict[str, Any]) -> tuple[str, dict[str, list[Span]]]:
    """Return text and spans, all offsets in characters."""
    text: str = content["text"]
    spans: dict[str, list[Span]] = {}
    for name, value in (content.get("annotations") or {}).items():
        entries = json.loads(value) if isinstance(value, str) else value
        spans[name] = [Span(int(entry["start"]), int(entry["end"]), entry.get("attributes") or {}) for entry in entries or []]
    if any(span.end > len(text) for found in spans.values() for span in found):
        data = text.encode()
        if any(span.end > len(data) for found in spans.values() for span in found):
            raise ValueError("an annotation ends behind the text")
        places = _characters(data)
        spans = {name: [Span(places[span.start], places[span.end], span.attributes) for span in found] for name, found in spans.items()}
    return text, spans


def _characters(data: bytes) -> list[int]:
    """Return for each byte offset, and the end, which character it is in or before."""
    places, character = [], -1
    for byte in data:
        character += byte & 0xC0 != 0x80
        places.append(character)
    return [*places, character + 1]


def _work(text: str, spans: dict[str, list[Span]], entry: Span) -> tuple[str, str]:
    def inside(name: str) -> str:
        found = [span for span in spans.get(name, []) if entry.start <= span.start and span.end <= entry.end]
        return " ".join(text[found[0].start : found[0].end].split()) if found else ""

    return inside("bibtitle"), inside("bibauthorlastname")
