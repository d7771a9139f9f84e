"""Lines of PDF pages to running text: running heads out, words joined again, lines to paragraphs."""

import re
from collections import Counter
from collections.abc import Sequence

_SCANNED_CHARACTERS = 200
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
_SOFT_BREAK = re.compile(r"[\u00ad\ufffe\x02]\s*\r?\n?\s*")  # pdfium writes U+FFFE or U+0002 for a hyphen at the end of a line
_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
_END = re.compile(r"[.!?:;。！？：；][\"'”’)\]]*$")
_NEW = re.compile(r"(?:[-–•*●▪]|\(?\d{1,3}[.)]|[a-z]\))\s")


def looks_scanned(text: str) -> bool:
    """Say whether a page's text is that of a scan: fewer than 200 letters and digits, or fewer than half of its characters are such.

    MMedLM's rule, for a page in place of a file.
    """
    solid = [character for character in text if not character.isspace()]
    letters = sum(character.isalnum() for character in solid)
    return letters < _SCANNED_CHARACTERS or letters < len(solid) / 2


def outer_matter(pages: int) -> set[int]:
    """Return which pages (from 0) of a long book are title, contents, index: MMedLM keeps those above 0.018 N + 3 and below N - 5."""
    if pages < 100:
        return set()
    return {number for number in range(pages) if not 0.018 * pages + 3 < number < pages - 5}


def joined_pages(pages: Sequence[str]) -> str:
    """Return the text of all pages as paragraphs; a sentence that goes on over a page's end stays whole."""
    lines = [[line.strip() for line in _cleaned(page).split("\n") if line.strip()] for page in pages]
    heads = _running_heads(lines)
    paragraphs: list[str] = []
    last = ""
    for page in lines:
        kept = [line for number, line in enumerate(page) if not (_edge(number, len(page)) and _shape(line) in heads)]
        width = max(map(len, kept), default=0)
        for line in kept:
            if paragraphs and not _begins(line, last, width):
                paragraphs[-1] += f" {line}"
            else:
                paragraphs.append(line)
            last = line
    return "\n\n".join(paragraphs)


def _cleaned(page: str) -> str:
    text = _SOFT_BREAK.sub("", page).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    text = _HYPHEN.sub("", text)
    for ligature, letters in _LIGATURES.items():
        text = text.replace(ligature, letters)
    return text


def _edge(number: int, lines: int) -> bool:
    return number < 2 or number >= lines - 2


def _shape(line: str) -> str:
    """Return a line with numbers made alike, so that page numbers do not tell running heads apart."""
    return re.sub(r"\d+", "0", line.lower())


def _running_heads(pages: Sequence[Sequence[str]]) -> set[str]:
    """Return the shapes of lines that stand at the top or bottom of at least three pages and of a tenth of all."""
    shapes: Counter[str] = Counter()
    for page in pages:
        shapes.update({_shape(line) for number, line in enumerate(page) if _edge(number, len(page))})
    least = max(3, len(pages) / 10)
    return {shape for shape, count in shapes.items() if count >= least}


def _begins(line: str, last: str, width: int) -> bool:
    """Say whether a line begins a paragraph: an item of a list, or a capital behind a line that is far shorter than the page is wide."""
    if _NEW.match(line):
        return True
    short = len(last) < width * (0.85 if _END.search(last) else 0.6)
    return short and not line[:1].islower()
