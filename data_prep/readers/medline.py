"""MEDLINE/PubMed XML (`PubmedArticleSet`, plain or gzipped) to documents.

Title, blank line, abstract.

The format is NLM's, https://dtd.nlm.nih.gov/ncbi/pubmed/doc/out/190101/. Records are read one by
one in constant memory. Which of several records of a PMID stays is found out before, over all
files: data_prep/curation/medline_versions.py.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from datatrove.data import Document
from datatrove.io import DataFolderLike
from lxml import etree

from data_prep.readers.base import SourceReader
from data_prep.readers.bounded_streams import BoundedStream
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.license import OTHER, license_name
from data_prep.readers.markup import plain_text
from data_prep.readers.record import Record, printable
from galen.errors import DataError

_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: f"{number:02d}" for number, name in enumerate(_MONTH_NAMES, 1)}
_RECORDS = ("PubmedArticle", "PubmedBookArticle", "DeleteCitation")

KEEP = 0
SUPERSEDED = 1
DELETED = 2
_REASONS = {SUPERSEDED: "superseded by a later version", DELETED: "deleted by NLM"}


class MedlineReader(SourceReader):
    """Yields one document per `PubmedArticle`, also those without an abstract.

    Filters decide which stay.

    Args:
        folder, options: see SourceReader.
        decisions: for each `PubmedArticle` of the one file with a PMID, in order: KEEP, SUPERSEDED
            or DELETED; without them all are kept.
    """

    name = "medline"
    endings = (".xml", ".xml.gz")

    def __init__(
        self,
        folder: DataFolderLike,
        options: ReaderOptions | None = None,
        decisions: Sequence[int] = (),
    ) -> None:
        super().__init__(folder, options)
        self.decisions = decisions

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the records of one file, each with the decision on it."""
        decisions = iter(self.decisions)
        for element in self.elements(filepath):
            decision = KEEP
            if self.decisions and element.tag == "PubmedArticle" and pmid_of(element):
                decision = next(decisions, KEEP)
            yield Record(f"line {element.sourceline}", (element, decision))

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a record that counts."""
        element, decision = record.content
        if element.tag == "DeleteCitation":
            self.stat_update("deletion notices", value=len(element.findall("PMID")))
            return
        self.stat_update("total")
        if element.tag == "PubmedBookArticle":
            self.stat_update("dropped_book record")
        elif not (pmid := pmid_of(element)):
            self.stat_update("dropped_no PMID")
        elif decision != KEEP:
            self.stat_update(f"dropped_{_REASONS[decision]}")
        else:
            yield article(element.find("MedlineCitation"), pmid, printable(PurePath(filepath).name))

    def elements(self, filepath: str) -> Iterator[etree._Element]:
        """Yield the records of one file as elements, which are emptied afterwards."""
        path = self.path_of(filepath)
        with self.open(filepath) as decompressed:
            stream = BoundedStream(decompressed, self.options.max_record_bytes, path)
            # no DTD and no entity is loaded or expanded: files come from outside
            events = etree.iterparse(
                stream,
                events=("end",),
                tag=_RECORDS,
                resolve_entities=False,
                load_dtd=False,
                huge_tree=True,
            )
            try:
                for _, element in events:
                    stream.mark()
                    yield element
                    element.clear()
                    while element.getprevious() is not None:
                        del element.getparent()[0]
            except etree.XMLSyntaxError as error:
                raise DataError(
                    f"{path}, line {error.lineno}: broken XML ({error.msg}); fetch it again"
                ) from None
            if events.root.tag != "PubmedArticleSet":
                raise DataError(
                    f"{path} is not MEDLINE XML: its root element is <{events.root.tag}>, not"
                    " <PubmedArticleSet>"
                )


def pmid_of(element: etree._Element) -> str:
    """Return the PMID of a `PubmedArticle`; empty if it has none."""
    return (element.findtext("MedlineCitation/PMID") or "").strip()


def article(citation: etree._Element, pmid: str, source: str) -> Document:
    """Return the document of one `MedlineCitation`."""
    title = _title(citation)
    rights = _optional_text(citation.find("Article/Abstract/CopyrightInformation"))
    license = license_name(rights)
    metadata: dict[str, Any] = {
        "pmid": pmid,
        "title": title,
        "language": [
            language.text for language in citation.findall("Article/Language") if language.text
        ],
        "mesh": [_heading(heading) for heading in citation.findall("MeshHeadingList/MeshHeading")],
        "publication_types": [
            publication_type.text
            for publication_type in citation.findall("Article/PublicationTypeList/PublicationType")
            if publication_type.text
        ],
        "date": _date(citation),
        "copyright": rights,
        "license": "" if license == OTHER else license,  # a copyright line is no license
        "retracted": (
            citation.find("CommentsCorrectionsList/CommentsCorrections[@RefType='RetractionIn']")
            is not None
        ),
        "source": source,
    }
    text = "\n\n".join(part for part in (title, _abstract(citation)) if part)
    return Document(text=text, id=pmid, metadata=metadata)


def _title(citation: etree._Element) -> str:
    """Return the English title; square brackets, which mark a translated one, are taken off.

    Without one, the original title.
    """
    title = _optional_text(citation.find("Article/ArticleTitle"))
    bracketed = re.fullmatch(r"\[(.*)\](\.?)", title)
    if bracketed and _balanced(bracketed[1]):
        inner, period = bracketed.groups()
        title = inner if inner[-1:] in (".", "?", "!") else inner + period
    if not title or title.rstrip(".").lower() == "not available":
        return _optional_text(citation.find("Article/VernacularTitle"))
    return title


def _balanced(text: str) -> bool:
    """False for the inside of "[A] and [B]", whose outer brackets are no pair."""
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return False
    return depth == 0


def _abstract(citation: etree._Element) -> str:
    """Return the abstract, one line per section, each with its label.

    `OtherAbstract` (other languages, lay summaries) stays out.
    """
    sections = []
    for section in citation.findall("Article/Abstract/AbstractText"):
        text = plain_text(section)
        label = " ".join((section.get("Label") or "").split()).rstrip(":")
        if label and label.upper() != "UNLABELLED" and text:
            text = f"{label}: {text}"
        if text:
            sections.append(text)
    return "\n".join(sections)


def _heading(heading: etree._Element) -> dict[str, Any]:
    """Return a MeSH heading.

    It is a major topic if the descriptor or one of its qualifiers is starred.
    """
    descriptor = heading.find("DescriptorName")
    assert descriptor is not None, "the DTD demands a descriptor"
    major = any(part.get("MajorTopicYN") == "Y" for part in heading)
    return {"ui": descriptor.get("UI"), "name": descriptor.text, "major": major}


def _date(citation: etree._Element) -> str | None:
    """Return the publication date as far as known.

    "2021-03-15", "2021-03", or only "1978" for "1978 Spring".
    """
    date = citation.find("Article/Journal/JournalIssue/PubDate")
    if date is None:
        return None
    year = date.findtext("Year")
    if year is None:
        match = re.search(r"\b(1[5-9]|20)\d\d\b", date.findtext("MedlineDate") or "")
        return match[0] if match else None
    month_text = date.findtext("Month") or ""
    month = _MONTHS.get(month_text[:3].title()) or month_text.zfill(2)
    if not re.fullmatch(r"0[1-9]|1[0-2]", month):
        return year
    day = date.findtext("Day")
    return f"{year}-{month}-{day.zfill(2)}" if day and day.isdigit() else f"{year}-{month}"


def _optional_text(element: etree._Element | None) -> str:
    return "" if element is None else plain_text(element)
