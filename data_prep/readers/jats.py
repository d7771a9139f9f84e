"""JATS full text (https://jats.nlm.nih.gov/), as PubMed Central and PLOS ship it, to Markdown.

Title, abstracts, body, appendices.
"""

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from datatrove.data import Document
from lxml import etree

from data_prep.readers.base import SourceReader
from data_prep.readers.jats_text import JatsText
from data_prep.readers.license import OTHER, license_name
from data_prep.readers.markup import plain_text
from data_prep.readers.record import Record, RecordRejectedError, Rejection
from data_prep.readers.rendering import MarkupTableOptions
from data_prep.readers.tar_stream import files_of
from data_prep.readers.unread_members import UnreadMembers
from data_prep.readers.xml_tree import HREF, LANGUAGE, Element, parse_xml, strip_namespaces, tag_of
from galen.errors import DataError

_PACKAGES = (".tar.gz", ".tgz", ".tar")
_ARTICLES = (".nxml", ".xml", ".nxml.gz", ".xml.gz")
_ABOUT_ENVELOPE = {"responseDate", "request", "header", "Header", "about", "resumptionToken"}
_TEASERS = {"toc", "teaser", "graphical", "web-summary", "key-image", "video"}
# JATS article types -> MEDLINE publication types, which filters know
_TYPES = {
    "research-article": "Journal Article",
    "review-article": "Review",
    "systematic-review": "Systematic Review",
    "case-report": "Case Reports",
    "editorial": "Editorial",
    "letter": "Letter",
    "news": "News",
    "correction": "Published Erratum",
    "retraction": "Retraction of Publication",
    "expression-of-concern": "Expression of Concern",
    "preprint": "Preprint",
}


class JatsReader(SourceReader):
    """Yields one document per `article`, of single files or of the members of tar archives.

    Tar archives are read as streams; their other members, archives too, are counted.

    The id is the PMCID ("PMC123"), else the DOI, else the PMID, else a hash. Metadata besides what
    all readers give: pmcid, pmid, doi, article_type, journal, full_text (whether there is a body).
    Sub-articles (reviews, decision letters, translations) are left out and counted as `sub-articles
    left out`.

    Raises:
        DataError: a broken archive. A broken article is quarantined.
    """

    name = "jats"
    Options = MarkupTableOptions
    options: MarkupTableOptions
    endings = (*_ARTICLES, *_PACKAGES)
    many_per_task = True

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file, or the members of an archive, as bytes."""
        if not filepath.lower().endswith(_PACKAGES):
            yield from self.file_record(filepath)
            return
        with self.open(filepath) as stream:
            unread = UnreadMembers()
            try:
                for member, file in files_of(stream):
                    if member.name.lower().endswith(_ARTICLES):
                        yield self._member(member, file)
                    else:
                        unread.add(member.name)
            except tarfile.TarError as error:
                raise DataError(
                    f"{self.path_of(filepath)} is not a complete tar archive ({error}); fetch it"
                    " again"
                ) from None
            yield from unread.records()

    def _member(self, member: tarfile.TarInfo, file: BinaryIO) -> Record:
        """Return a member; a sparse file, which could be of any length, is refused."""
        if member.issparse():
            return Record(
                f"member {member.name}",
                rejection=Rejection("sparse file", "a sparse file in a tar archive is not read"),
            )
        return self.member(file, member.name)

    def parts(self, record: Record, filepath: str) -> Iterator[Record]:
        """Yield the articles of one file or member.

        One as a rule, several where the root is a set of them.
        """
        try:
            root = parse_xml(record.content)
        except etree.XMLSyntaxError as error:
            record.position += f", line {error.lineno}"
            raise RecordRejectedError("broken XML", error.msg) from None
        strip_namespaces(root)
        is_member = record.position.startswith("member ")
        name = record.position.removeprefix("member ") if is_member else filepath
        articles, others = articles_of(root)
        for element in others:
            yield self._not_an_article(element, record)
        if len(articles) == 1:
            yield Record(record.position, (articles[0], name), record.sample)
            return
        for number, article in enumerate(articles):
            position = f"{record.position}, article {number + 1}"
            yield Record(position, (article, f"{name}/{number}"), record.sample)

    def _not_an_article(self, element: Element, record: Record) -> Record:
        """Return an element in place of an article: it is counted, too."""
        if element.find("header[@status='deleted']") is not None:
            return Record(record.position, (None, ""))
        parent = element.getparent()
        if parent is None:
            rejection = Rejection(
                "not JATS",
                f"the root element is <{tag_of(element)}>, not an <article> with front matter or a"
                " body, and holds none",
            )
            return Record(record.position, sample=record.sample, rejection=rejection)
        rejection = Rejection(
            "not JATS",
            f"<{tag_of(element)}> in <{tag_of(parent)}> is no JATS article and holds none",
        )
        return Record(
            f"{record.position}, line {element.sourceline}",
            sample=f"<{tag_of(element)}>",
            rejection=rejection,
        )

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of an article."""
        article, name = record.content
        if article is None:
            self.stat_update("total", "dropped_deleted record")
            return
        document = self._document(article, name, filepath)
        self.stat_update("total")
        sub_articles = [*article.iterfind("sub-article"), *article.iterfind("response")]
        self.stat_update("sub-articles skipped", value=len(sub_articles))
        if document.text:
            yield document
        else:
            self.stat_update("dropped_no text")

    def _document(self, article: Element, name: str, filepath: str) -> Document:
        metadata = _metadata(article)
        writer = JatsText(article, self.options)
        metadata["title"] = _title(article, writer)
        for abstract in article.iterfind("front/article-meta/abstract"):
            if abstract.get("abstract-type") not in _TEASERS:
                writer.abstract(abstract)
        body = article.find("body")
        if body is not None:
            writer.body(body)
        writer.rest(article)
        metadata["full_text"] = body is not None and len(body) > 0
        text = "\n\n".join(block for block in [metadata["title"], *writer.blocks] if block)
        document_id = metadata["pmcid"] or metadata["doi"] or metadata["pmid"]
        if not document_id:
            document_id = self.content_id(name, text)
        return self.document(text, document_id, filepath, **metadata)


def _title(article: Element, writer: JatsText) -> str:
    """Return title and subtitles, "" without a title group."""
    title_group = article.find("front/article-meta/title-group")
    if title_group is None:
        return ""
    elements = [title_group.find("article-title"), *title_group.iterfind("subtitle")]
    titles = [writer.text_of(element) for element in elements]
    return ": ".join(title.rstrip(":") for title in titles if title)


def _metadata(article: Element) -> dict[str, Any]:
    """Return what an article's front matter states."""
    meta = article.find("front/article-meta")
    if meta is None:
        meta = etree.Element("article-meta")
    article_type = article.get("article-type") or ""
    pmcid = _article_id(meta, "pmcid") or _article_id(meta, "pmc") or _article_id(meta, "pmcaid")
    pmcid = f"PMC{pmcid.upper().removeprefix('PMC')}" if pmcid else ""
    statement, license = _rights(meta)
    related = {element.get("related-article-type") for element in meta.iterfind("related-article")}
    language = article.get(LANGUAGE)
    return {
        "pmcid": pmcid,
        "pmid": _article_id(meta, "pmid"),
        "doi": _article_id(meta, "doi"),
        "article_type": article_type,
        "publication_types": [_TYPES[article_type]] if article_type in _TYPES else [],
        "journal": " ".join((article.findtext("front/journal-meta//journal-title") or "").split()),
        "language": [language] if language else [],
        "date": _date(meta),
        "copyright": statement,
        "license": license,
        "retracted": bool(related & {"retraction-forward", "retracted-by"}),
    }


def _article_id(meta: Element, id_type: str) -> str:
    return (meta.findtext(f"article-id[@pub-id-type='{id_type}']") or "").strip()


def _rights(meta: Element) -> tuple[str, str]:
    """Return the statement of rights, on one line, and the license's name."""
    parts: list[Element] = []
    for path in ("permissions", "copyright-statement", "license"):
        for element in meta.iterfind(path):
            parts += element.iter()
    sentences = [
        plain_text(part) for part in parts if tag_of(part) in ("copyright-statement", "license")
    ]
    statement = " ".join(sentence for sentence in sentences if sentence)
    licenses = [part for part in parts if tag_of(part) == "license"]
    if not licenses:  # a copyright line alone grants nothing
        name = license_name(statement)
        return statement, "" if name == OTHER else name
    addresses: list[str | None] = []
    for part in parts:
        if tag_of(part) in ("license", "ext-link", "license_ref"):
            addresses += [part.get(HREF), part.text]
    types = [license.get("license-type") for license in licenses]
    name = license_name(*addresses, statement, *types)
    if name not in ("", OTHER) and license_name(statement) != name:
        statement = f"{statement} ({name})".strip()  # only the address names it
    return statement, name


def _date(meta: Element) -> str | None:
    """Return the earliest publication date, as far as known: "2013-02-28", "2013-02" or "2013"."""
    dates = []
    for date in meta.iterfind("pub-date"):
        date_type = date.get("pub-type") or date.get("date-type")
        year = (date.findtext("year") or "").strip()
        if date_type not in ("pmc-release", "nihms-submitted") and year.isdecimal():
            dates.append("-".join([year, *_month_and_day(date)]))
    # "2013" is not before "2013-02-28": the more precise date is taken
    return min(dates, key=lambda date: (date[:4], -len(date), date)) if dates else None


def _month_and_day(date: Element) -> list[str]:
    """Return month and day in two digits, as far as they are known."""
    parts: list[str] = []
    for name in ("month", "day"):
        part = (date.findtext(name) or "").strip()
        if not part.isdecimal():
            break
        parts.append(part.zfill(2))
    return parts


def articles_of(root: Element) -> tuple[list[Element], list[Element]]:
    """Return the articles in a document, and the other elements beside them.

    Sets and envelopes (OAI-PMH) are searched at any depth. Metadata of an envelope (the dates
    and headers of OAI-PMH, an issue's metadata) counts as neither.
    """
    articles: list[Element] = []
    others: list[Element] = []
    pending = [root]
    while pending:
        element = pending.pop()
        tag = tag_of(element)
        if tag == "article" and _is_jats(element):
            articles.append(element)
        elif next(iter(element.iterdescendants("article")), None) is not None:
            pending.extend(child for child in reversed(element) if tag_of(child))
        elif element is root or not _is_about_envelope(element):
            others.append(element)
    return articles, others


def _is_jats(element: Element) -> bool:
    """Return whether an `article` is one of JATS.

    Other languages (DocBook, HTML) have an element of that name, too.
    """
    return any(tag_of(child) in ("front", "body") for child in element)


def _is_about_envelope(element: Element) -> bool:
    tag = tag_of(element)
    return (
        tag in _ABOUT_ENVELOPE
        or tag.endswith("-meta")
        or (len(element) == 0 and tag.lower() not in ("reply", "error", "record"))
    )
