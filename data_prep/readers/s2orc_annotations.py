"""Text with stand-off annotations, as S2ORC has it.

Spans of the text mark headers, citations, figures, authors.

An annotation's value is a list of `{start, end, attributes}` or that list as a JSON string. Offsets
count characters, UTF-16 units or bytes of UTF-8: of the units in which all annotations lie inside
the text, the one in which the fewest begin or end inside a word is chosen. Names of annotations may
have underscores.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from data_prep.readers.rendering import MarkupOptions, MarkupRenderer, heading, tidy

_REMOVED = (
    "author",
    "authorfirstname",
    "authorlastname",
    "authoraffiliation",
    "bibentry",
    "publisher",
    "venue",
    "title",
)
_MAIN_SECTION = re.compile(
    r"abstract|introduction|background|(materials? and )?methods?|results?( and"
    r" discussion)?|discussions?|conclusions?",
    re.IGNORECASE,
)


class Span(NamedTuple):
    """One annotation."""

    start: int
    end: int
    attributes: dict[str, Any]


class Replacement(NamedTuple):
    """What replaces a part of the text; an insertion has start = end."""

    start: int
    end: int
    text: str


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
        if bibliography:
            text, spans = _load(bibliography)
        else:
            text = self.text
            spans = self.spans
        self.works = {
            str(entry.attributes.get("id")): _cited_work(text, spans, entry)
            for entry in spans.get("bibentry", [])
        }
        self.captions = {
            str(span.attributes.get("id")): self._caption(span)
            for span in self._of("figure", "table")
        }

    def _of(self, *names: str) -> list[Span]:
        return [span for name in names for span in self.spans.get(name, [])]

    def _text_of(self, span: Span) -> str:
        return " ".join(self.text[span.start : span.end].split())

    def title(self) -> str:
        """Return the title, "" if none is marked."""
        return next(map(self._text_of, self._of("title")), "")

    def _caption(self, figure: Span) -> str:
        captions = _spans_inside(figure, self._of("figurecaption", "tablecaption"))
        return " ".join(map(self._text_of, captions))

    def blocks(self) -> list[str]:
        """Return abstract and body as Markdown blocks; text before them is skipped."""
        replacements = [*self._block_replacements(), *self._inline_replacements()]
        text = replaced(self.text, replacements, self._begin())
        blocks = [tidy(" ".join(block.split())) for block in re.split(r"\n\s*\n", text)]
        return [block for block in blocks if block]

    def _begin(self) -> int:
        """Return the start of the first abstract, header or paragraph, else the title's end."""
        starts = [span.start for span in self._of("abstract", "sectionheader", "paragraph")]
        if starts:
            return min(starts)
        return max((span.end for span in self._of("title")), default=0)

    def _block_replacements(self) -> Iterator[Replacement]:
        """Yield what divides the text into blocks."""
        for span in self._of(*_REMOVED):
            yield Replacement(span.start, span.end, "\n\n")
        for span in self._of("abstract"):
            if not self._has_header(span):
                header = heading(1, "Abstract")
                yield Replacement(span.start, span.start, f"\n\n{header}\n\n")
        for span in self._of("sectionheader"):
            yield Replacement(span.start, span.end, f"\n\n{self._header(span)}\n\n")
        for span in self._of("paragraph"):
            yield Replacement(span.start, span.start, "\n\n")
        tables = self.spans.get("table", [])
        for span in self._of("figure", "table"):
            is_table = span.attributes.get("type") == "table" or span in tables
            token = "table" if is_table else "fig"
            text = self.renderer.figure_or_table(token, "", self._caption(span))
            yield Replacement(span.start, span.end, f"\n\n{text}\n\n")

    def _inline_replacements(self) -> Iterator[Replacement]:
        """Yield references, citations and formulas as they are written."""
        for span in self._of("figureref", "tableref"):
            caption = self.captions.get(str(span.attributes.get("ref_id")), "")
            text = self.renderer.reference(self._text_of(span), caption)
            yield Replacement(span.start, span.end, text)
        for span in self._of("bibref"):
            work = self.works.get(str(span.attributes.get("ref_id")))
            text = self.renderer.citation(self._text_of(span), [work] if work else [])
            yield Replacement(span.start, span.end, text)
        for span in self._of("formula"):
            text = self.renderer.formula(self._text_of(span))
            yield Replacement(span.start, span.end, text)

    def _has_header(self, abstract: Span) -> bool:
        return any(
            abs(span.start - abstract.start) < 20 and "abstract" in self._text_of(span).lower()
            for span in self._of("sectionheader")
        )

    def _header(self, span: Span) -> str:
        number = str(span.attributes.get("n") or "").strip().rstrip(".")
        name = self._text_of(span)
        if number:
            depth = len(number.split("."))
        else:
            depth = 1 if _MAIN_SECTION.fullmatch(name.strip(" .:")) else 2
        return heading(depth, name)


def replaced(text: str, replacements: Iterable[Replacement], begin: int = 0) -> str:
    """Return the text from `begin` with each replacement put in.

    One inside an earlier one is passed over; an insertion never hides a replacement at the same
    offset.
    """
    parts = []
    position = begin
    for start, end, new in sorted(replacements, key=_replacement_order):
        if start >= position:
            parts += [text[position:start], new]
            position = max(end, position)
    return "".join([*parts, text[position:]])


def _replacement_order(replacement: Replacement) -> tuple[int, bool, int]:
    """Sort by start: insertions first, then the longest."""
    is_insertion = replacement.start == replacement.end
    return replacement.start, not is_insertion, -replacement.end


def _load(content: dict[str, Any]) -> tuple[str, dict[str, list[Span]]]:
    """Return text and spans, all offsets in characters."""
    text = content.get("text") or ""
    if not isinstance(text, str):
        raise ValueError(f"'text' is {type(text).__name__}, not text")
    annotations = content.get("annotations")
    named = annotations.items() if isinstance(annotations, dict) else ()
    spans = {str(name).replace("_", ""): _spans(value) for name, value in named}
    candidates = [spans]
    if not text.isascii():
        units = (
            range(len(text) + 1),
            _character_indices(text, "utf-16-le", 2),
            _character_indices(text, "utf-8", 1),
        )
        candidates = [
            _in_characters(spans, indices) for indices in units if _fits(spans, len(indices) - 1)
        ]
    candidates = [candidate for candidate in candidates if _fits(candidate, len(text))]
    if not candidates:
        raise ValueError("an annotation ends behind the text")
    if len(candidates) == 1:
        return text, candidates[0]
    return text, min(candidates, key=lambda candidate: _num_cut_words(text, candidate))


def _spans(value: Any) -> list[Span]:
    """Return the annotations of one name; one without offsets is left out."""
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
    return all(span.end <= length for named_spans in spans.values() for span in named_spans)


def _in_characters(spans: dict[str, list[Span]], indices: Sequence[int]) -> dict[str, list[Span]]:
    """Return the spans with offsets in characters.

    `indices` has the index of the character for each offset.
    """
    converted: dict[str, list[Span]] = {}
    for name, named_spans in spans.items():
        converted[name] = [
            Span(indices[span.start], indices[span.end], span.attributes) for span in named_spans
        ]
    return converted


def _character_indices(text: str, encoding: str, size: int) -> list[int]:
    """Return the index of the character at each offset in units of `size` bytes of an encoding.

    One more index is for the end; an offset inside a character gives that character.
    """
    indices: list[int] = []
    for index, character in enumerate(text):
        indices += [index] * (len(character.encode(encoding, "surrogatepass")) // size)
    return [*indices, len(text)]


def _num_cut_words(text: str, spans: dict[str, list[Span]]) -> int:
    """Return how many spans begin or end inside a word or with white space."""
    wrong = 0
    for named_spans in spans.values():
        for span in named_spans:
            first = text[span.start : span.start + 1]
            last = text[max(span.end - 1, span.start) : span.end]
            wrong += first.isspace() or last.isspace()
            wrong += first.isalnum() and text[max(span.start - 1, 0) : span.start].isalnum()
            wrong += last.isalnum() and text[span.end : span.end + 1].isalnum()
    return wrong


def _spans_inside(outer: Span, spans: Iterable[Span]) -> list[Span]:
    return [span for span in spans if outer.start <= span.start and span.end <= outer.end]


def _cited_work(text: str, spans: dict[str, list[Span]], entry: Span) -> tuple[str, str]:
    """Return title and first author's last name of an entry of the bibliography."""

    def first(name: str) -> str:
        for span in _spans_inside(entry, spans.get(name, [])):
            return " ".join(text[span.start : span.end].split())
        return ""

    return first("bibtitle"), first("bibauthorlastname")
