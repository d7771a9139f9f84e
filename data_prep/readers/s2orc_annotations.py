"""Text with stand-off annotations, as S2ORC has it.

Spans of the text say what is a header, a citation, a figure, an author.

An annotation's value is a list of `{start, end, attributes}` or that list as a JSON string. Offsets
count characters, UTF-16 units or bytes of UTF-8: that is taken in which all annotations lie inside
the text and the fewest begin or end inside a word. Names of annotations may have underscores.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from data_prep.readers.rendering import MarkupOptions, MarkupRenderer, heading, tidy

_LEFT_OUT = (
    "author",
    "authorfirstname",
    "authorlastname",
    "authoraffiliation",
    "bibentry",
    "publisher",
    "venue",
    "title",
)
_MAIN = re.compile(
    r"abstract|introduction|background|(materials? and )?methods?|results?( and"
    r" discussion)?|discussions?|conclusions?",
    re.IGNORECASE,
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

    def __init__(
        self,
        content: dict[str, Any],
        options: MarkupOptions,
        bibliography: dict[str, Any] | None = None,
    ) -> None:
        self.text, self.spans = _load(content)
        self.renderer = MarkupRenderer(options)
        text, spans = _load(bibliography) if bibliography else (self.text, self.spans)
        self.works = {
            str(entry.attributes.get("id")): _work(text, spans, entry)
            for entry in spans.get("bibentry", [])
        }
        self.captions = {
            str(span.attributes.get("id")): self._caption(span)
            for span in self._of("figure", "table")
        }

    def _of(self, *names: str) -> list[Span]:
        return [span for name in names for span in self.spans.get(name, [])]

    def _at(self, span: Span) -> str:
        return " ".join(self.text[span.start : span.end].split())

    def title(self) -> str:
        """Return the title, "" if none is marked."""
        return next(map(self._at, self._of("title")), "")

    def _caption(self, figure: Span) -> str:
        inner = [
            span
            for span in self._of("figurecaption", "tablecaption")
            if figure.start <= span.start and span.end <= figure.end
        ]
        return " ".join(map(self._at, inner))

    def blocks(self) -> list[str]:
        """Return abstract and body as Markdown blocks; text before them is skipped."""
        starts = [span.start for span in self._of("abstract", "sectionheader", "paragraph")]
        begin = min(starts) if starts else max((span.end for span in self._of("title")), default=0)
        changes = [(span.start, span.end, "\n\n") for span in self._of(*_LEFT_OUT)]
        changes += [
            (span.start, span.start, f"\n\n{heading(1, 'Abstract')}\n\n")
            for span in self._of("abstract")
            if not self._headed(span)
        ]
        changes += [
            (span.start, span.end, f"\n\n{self._header(span)}\n\n")
            for span in self._of("sectionheader")
        ]
        changes += [(span.start, span.start, "\n\n") for span in self._of("paragraph")]
        for span in self._of("figure", "table"):
            kind = (
                "table"
                if span.attributes.get("type") == "table" or span in self.spans.get("table", [])
                else "fig"
            )
            changes.append(
                (
                    span.start,
                    span.end,
                    f"\n\n{self.renderer.figure_or_table(kind, '', self._caption(span))}\n\n",
                )
            )
        for span in self._of("figureref", "tableref"):
            caption = self.captions.get(str(span.attributes.get("ref_id")), "")
            changes.append((span.start, span.end, self.renderer.reference(self._at(span), caption)))
        for span in self._of("bibref"):
            work = self.works.get(str(span.attributes.get("ref_id")))
            changes.append(
                (
                    span.start,
                    span.end,
                    self.renderer.citation(self._at(span), [work] if work else []),
                )
            )
        changes += [
            (span.start, span.end, self.renderer.formula(self._at(span)))
            for span in self._of("formula")
        ]
        blocks = re.split(r"\n\s*\n", replaced(self.text, changes, begin))
        return [text for block in blocks if (text := tidy(" ".join(block.split())))]

    def _headed(self, abstract: Span) -> bool:
        return any(
            abs(span.start - abstract.start) < 20 and "abstract" in self._at(span).lower()
            for span in self._of("sectionheader")
        )

    def _header(self, span: Span) -> str:
        number = str(span.attributes.get("n") or "").strip().rstrip(".")
        name = self._at(span)
        depth = len(number.split(".")) if number else 1 if _MAIN.fullmatch(name.strip(" .:")) else 2
        return heading(depth, name)


def replaced(text: str, changes: Iterable[tuple[int, int, str]], begin: int = 0) -> str:
    """Return the text from `begin` with each (start, end, replacement) put in.

    A change inside an earlier one is passed over; an insertion (start = end) never hides a change
    at the same place.
    """
    parts = []
    position = begin
    for start, end, new in sorted(
        changes, key=lambda change: (change[0], change[1] != change[0], -change[1])
    ):
        if start >= position:
            parts += [text[position:start], new]
            position = max(end, position)
    return "".join([*parts, text[position:]])


def _load(content: dict[str, Any]) -> tuple[str, dict[str, list[Span]]]:
    """Return text and spans, all offsets in characters."""
    text = content.get("text") or ""
    if not isinstance(text, str):
        raise ValueError(f"'text' is {type(text).__name__}, not text")
    annotations = content.get("annotations")
    named = annotations.items() if isinstance(annotations, dict) else ()
    spans = {str(name).replace("_", ""): _spans(value) for name, value in named}
    if text.isascii():
        readings = [spans]
    else:
        units = (
            range(len(text) + 1),
            _characters(text, "utf-16-le", 2),
            _characters(text, "utf-8", 1),
        )
        readings = [_placed(spans, places) for places in units if _fits(spans, len(places) - 1)]
    readings = [reading for reading in readings if _fits(reading, len(text))]
    if not readings:
        raise ValueError("an annotation ends behind the text")
    return text, (
        min(readings, key=lambda reading: _cut_words(text, reading))
        if len(readings) > 1
        else readings[0]
    )


def _spans(value: Any) -> list[Span]:
    """Return the annotations of one kind; one without a place in the text is left out."""
    entries = json.loads(value) if isinstance(value, str) and value.strip() else value
    spans = []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("start") is None or entry.get("end") is None:
            continue
        start = int(entry["start"])
        end = int(entry["end"])
        attributes = entry.get("attributes")
        if not 0 <= start <= end:
            raise ValueError(f"an annotation ends before it begins ({start} to {end})")
        spans.append(Span(start, end, attributes if isinstance(attributes, dict) else {}))
    return spans


def _fits(spans: dict[str, list[Span]], length: int) -> bool:
    return all(span.end <= length for found in spans.values() for span in found)


def _placed(spans: dict[str, list[Span]], places: Sequence[int]) -> dict[str, list[Span]]:
    """Return the spans with offsets in characters; `places` has the character for each offset."""
    return {
        name: [Span(places[span.start], places[span.end], span.attributes) for span in found]
        for name, found in spans.items()
    }


def _characters(text: str, encoding: str, size: int) -> list[int]:
    """Return the index of the character at each offset in units of `size` bytes of an encoding.

    One more index is for the end; an offset inside a character gives that character.
    """
    places: list[int] = []
    for number, character in enumerate(text):
        places += [number] * (len(character.encode(encoding, "surrogatepass")) // size)
    return [*places, len(text)]


def _cut_words(text: str, spans: dict[str, list[Span]]) -> int:
    """Return how many spans begin or end inside a word or with white space."""
    wrong = 0
    for found in spans.values():
        for span in found:
            begins = text[span.start : span.start + 1]
            ends = text[max(span.end - 1, span.start) : span.end]
            wrong += begins.isspace() or ends.isspace()
            wrong += begins.isalnum() and text[max(span.start - 1, 0) : span.start].isalnum()
            wrong += ends.isalnum() and text[span.end : span.end + 1].isalnum()
    return wrong


def _work(text: str, spans: dict[str, list[Span]], entry: Span) -> tuple[str, str]:
    def inside(name: str) -> str:
        found = [
            span
            for span in spans.get(name, [])
            if entry.start <= span.start and span.end <= entry.end
        ]
        return " ".join(text[found[0].start : found[0].end].split()) if found else ""

    return inside("bibtitle"), inside("bibauthorlastname")
