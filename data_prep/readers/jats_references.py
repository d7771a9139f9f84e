"""The targets of the references in a JATS article: cited works, figures, and floats apart."""

from collections.abc import Iterator

from data_prep.readers.markup import clean
from data_prep.readers.xml_tree import Element

_CITATIONS = ("mixed-citation", "citation", "element-citation", "nlm-citation")


class ReferenceTargets:
    """The elements of one article that an `xref` can name by their ids.

    Attributes:
        works: title and first author's last name of each entry of the bibliography.
        figures: figures and tables.
        floats: figures, tables and footnotes that are apart from the text (`floats-group`,
            `back/fn-group`).
    """

    def __init__(self, article: Element) -> None:
        self.works = {
            str(ref.get("id")): _cited_work(ref) for ref in article.iterfind(".//ref-list//ref")
        }
        self.figures = {
            str(figure.get("id")): figure
            for figure in article.iter("fig", "table-wrap")
            if figure.get("id")
        }
        apart = [*article.iterfind("floats-group/*"), *article.iterfind("back//fn-group/fn")]
        self.floats = {str(element.get("id")): element for element in apart if element.get("id")}

    def works_of(self, ids: list[str]) -> list[tuple[str, str]]:
        """Return the works with these ids; an id of nothing in the bibliography is skipped."""
        return [self.works[id] for id in ids if id in self.works]

    def caption_of(self, id: str) -> str:
        """Return the caption of a figure or table on one line, "" without one."""
        caption = self.figures[id].find("caption")
        if caption is None:
            return ""
        return " ".join(_all_text(child) for child in caption)

    def take_floats(self, paragraph: Element) -> Iterator[Element]:
        """Yield the floats that a paragraph refers to, each only for the first that does."""
        for xref in paragraph.iter("xref"):
            for id in (xref.get("rid") or "").split():
                if (element := self.floats.pop(id, None)) is not None:
                    yield element


def _cited_work(ref: Element) -> tuple[str, str]:
    """Return title and first author's last name of an entry of the bibliography."""
    title = (
        _first_text(ref, "article-title")
        or _first_text(ref, "chapter-title")
        or _first_text(ref, "source")
    )
    if title:
        name = _first_text(ref, "surname") or _first_text(ref, "collab")
        return title.rstrip("."), name
    # not divided into parts
    citation = next(ref.iter(*_CITATIONS), None)
    if citation is None:
        return "", ""
    return clean(" ".join(map(str, citation.itertext()))), ""


def _first_text(element: Element, tag: str) -> str:
    """Return the text of the first descendant of a tag that has any, "" without one."""
    for descendant in element.iter(tag):
        if text := _all_text(descendant):
            return text
    return ""


def _all_text(element: Element) -> str:
    return clean("".join(map(str, element.itertext())))
