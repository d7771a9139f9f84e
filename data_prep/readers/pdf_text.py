"""Lines of PDF pages to running text: no running heads, words rejoined, lines to paragraphs."""

import re
from collections import Counter
from collections.abc import Sequence

from data_prep.readers.word_breaks import WordBreaks

_SCANNED_CHARACTERS = 200
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
# A hyphen at the end of a line, which pdfium writes as U+FFFE or U+0002, and the word behind it.
_BREAK = re.compile(
    r"(?:[\ufffe\x02][ \t]*\n?|\u00ad[ \t]*\n|(?<=[^\W\d_])[-\u2010][ \t]*\n)[ \t]*(?=(\S*))"
)
_SOFT_HYPHEN = "\u00ad"
_LONGEST_WORD = 80
_LONGEST_EDGE = 300
_PAGE_DIGITS = 3
_ADDRESS = r"(?:https?|file|ftp)://\S+"
_DATE = r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}\.? \w+\.? \d{4}|\w+\.? \d{1,2}, \d{4})"
_CLOCK = r"\d{1,2}[:.h]\d{2}(?::\d{2})?(?:\s?[AaPp]\.?[Mm]\.?)?"
_OF = r"(?:of|/|von|de|sur|di|van|из|z|av|af)"
_PAGE_WORD = r"(?:page|seite|página|pagina|pág\.?|p\.|s\.|стр\.?|страница|стор\.?|strona|sida|side)"
_PAGE = rf"{_PAGE_WORD}\s*\d+(?:\s*{_OF}\s*\d+)?"
# What browsers and word processors print at the edges of a page, whatever the document
_PRINTED = re.compile(
    rf"""\W*(?:{_ADDRESS}(?:\s+\d+\s*{_OF}\s*\d+)?       # address of the page, with its number
    |{_DATE},?\s+{_CLOCK}(?:\s+\S.*)?                                   # date, time and title
    |\d+\s*{_OF}\s*\d+|[-–—|]\s*\d+\s*[-–—|]  # "1/1", "- 1 -"
    |{_PAGE}(?:\s.{{0,40}})?
    |(?:downloaded|printed|retrieved|accessed|gedruckt|ausgedruckt|heruntergeladen|imprimé|téléchargé|impreso|descargado|stampato|impresso)
      \b.{{0,120}}(?:\d{{4}}|{_CLOCK}|{_ADDRESS}))\W*""",
    re.IGNORECASE | re.VERBOSE,
)
_END = re.compile(r"[.!?。！？][\"'”’)\]]*$")
_CONTINUES = re.compile(
    r"[,;(\[–—-]$|\b(?:a|an|the|of|and|or|in|to|for|with|by|on|at|from|that|which|is|are|was|were|de|la|le|et|und|der|die)$"
)
_NEW = re.compile(r"(?:[-–•*●▪\uf0a7\uf0b7\uf06c]|\(?\d{1,3}[.)]|[a-z]\))\s")


def looks_scanned(text: str) -> bool:
    """Return whether a page's text is that of a scan.

    It has fewer than 200 letters and digits, or they are fewer than half of its characters.
    """
    solid = [character for character in text if not character.isspace()]
    letters = sum(character.isalnum() for character in solid)
    return letters < _SCANNED_CHARACTERS or letters < len(solid) / 2


def front_back_matter(pages: int) -> set[int]:
    """Return which pages (from 0) of a long book are title, contents, index.

    MMedLM keeps those above 0.018 N + 3 and below N - 5.
    """
    if pages < 100:
        return set()
    return {number for number in range(pages) if not 0.018 * pages + 3 < number < pages - 5}


def joined_pages(pages: Sequence[str], language: str | None = None) -> str:
    """Return the text of all pages as paragraphs.

    A sentence that continues on the next page is not split.
    """
    cleaned = [_cleaned(page) for page in pages]
    breaks = WordBreaks("\n".join(cleaned), language)
    lines_of_pages = [_lines(page, breaks) for page in cleaned]
    running_heads = _running_heads(lines_of_pages)
    paragraphs: list[str] = []
    last = ""
    for page_lines in lines_of_pages:
        lines = _without_printed(_without_running_heads(page_lines, running_heads))
        lengths = sorted(map(len, lines))
        # that of a full line, also where a wide title is above columns
        width = lengths[len(lengths) * 3 // 4] if lengths else 0
        for line in lines:
            if paragraphs and not _begins(line, last, width, alone=last == paragraphs[-1]):
                paragraphs[-1] += f" {line}"
            else:
                paragraphs.append(line)
            last = line
    return "\n\n".join(paragraphs)


def _lines(page: str, breaks: WordBreaks) -> list[str]:
    """Return the lines of a page that are not empty, with broken words joined."""
    lines = [line.strip() for line in _joined(page, breaks).split("\n")]
    return [line for line in lines if line]


def _without_running_heads(lines: Sequence[str], running_heads: set[str]) -> list[str]:
    return [
        line
        for number, line in enumerate(lines)
        if not (_is_at_edge(number, len(lines)) and _without_numbers(line) in running_heads)
    ]


def _cleaned(page: str) -> str:
    text = page.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    for ligature, letters in _LIGATURES.items():
        text = text.replace(ligature, letters)
    return text


def _joined(page: str, breaks: WordBreaks) -> str:
    """Return a page with the words joined that lines' ends part."""

    def join(match: re.Match[str]) -> str:
        before = page[max(0, match.start() - _LONGEST_WORD) : match.start()]
        left = before.split()[-1] if before and not before[-1].isspace() else ""
        return breaks.separator(left, match[1])

    return _BREAK.sub(join, page).replace(_SOFT_HYPHEN, "")


def _without_printed(lines: list[str]) -> list[str]:
    """Return the lines of a page without printed headers and footers, two on each side at most."""
    start = 0
    end = len(lines)
    while start < min(2, end) and _is_printed(lines[start]):
        start += 1
    while end > max(start, len(lines) - 2) and _is_printed(lines[end - 1]):
        end -= 1
    return lines[start:end]


def _is_printed(line: str) -> bool:
    """Return whether a line is a header or footer that browsers or word processors print."""
    is_number = line.isdecimal() and len(line) <= _PAGE_DIGITS
    return is_number or (len(line) <= _LONGEST_EDGE and _PRINTED.fullmatch(line) is not None)


def _is_at_edge(number: int, lines: int) -> bool:
    return number < 2 or number >= lines - 2


def _without_numbers(line: str) -> str:
    """Return a line with all numbers alike, so that running heads differ by no page number."""
    return re.sub(r"\d+", "0", line.lower())


def _running_heads(pages: Sequence[Sequence[str]]) -> set[str]:
    """Return the lines, without numbers, at the edges of at least 3 and a tenth of all pages."""
    counts: Counter[str] = Counter()
    for lines in pages:
        edges = [line for number, line in enumerate(lines) if _is_at_edge(number, len(lines))]
        counts.update(set(map(_without_numbers, edges)))
    min_pages = max(3, len(pages) / 10)
    return {line for line, count in counts.items() if count >= min_pages}


def _begins(line: str, last: str, width: int, alone: bool) -> bool:
    """Return whether a line begins a paragraph.

    Such a line is a list item, or follows the short end of a sentence or a header.
    """
    if _NEW.match(line):
        return True
    if line[:1].islower() or _CONTINUES.search(last):
        return False
    if _END.search(last):
        return len(last) < width * 0.9
    if not alone or len(last) >= width * 0.7:
        return False
    return last[:1].isupper() or last[:1].isdigit() or _NEW.match(last) is not None
