"""S2ORC full text, both forms.

Text with annotations, as the Semantic Scholar datasets API gives it, and the older lists of
paragraphs.

Formats: https://api.semanticscholar.org/api-docs/datasets and
https://github.com/allenai/s2orc-doc2json.
"""

from collections.abc import Callable, Sequence
from typing import Any

from datatrove.data import Document

from data_prep.readers.license import license_name
from data_prep.readers.records import JsonReader
from data_prep.readers.rendering import MarkupOptions, MarkupRenderer, heading, tidy
from data_prep.readers.s2orc_annotations import AnnotatedText, Replacement, replaced

_FULL_TEXT = {"content", "body", "pdf_parse", "grobid_parse", "latex_parse"}


class S2orcReader(JsonReader):
    """Yields a document per record: title, then abstract and body with Markdown headers.

    The id is the PMCID ("PMC123"), else "s2:<corpus id>". Metadata besides what all readers give:
    corpusid, pmcid, pmid, doi, full_text.
    """

    name = "s2orc"
    Options = MarkupOptions
    options: MarkupOptions

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record."""
        metadata = _metadata(record)
        contents = [value for name in ("content", "body") if (value := record.get(name))]
        content = _preferred(lambda value: _object(value).get("text"), contents)
        if isinstance(content, dict):
            if not content.get("text"):
                return None
            text = AnnotatedText(content, self.options, _object(record.get("bibliography")))
            metadata["title"] = metadata["title"] or text.title()
            blocks = text.blocks()
            metadata["full_text"] = bool(blocks)
        else:
            parsed = _parsed_paragraphs(record)
            if parsed is None:
                if content is None and not _FULL_TEXT.isdisjoint(record):
                    return None  # the key is there, without a text
                raise KeyError("content' or 'body_text")
            blocks = _paragraphs(parsed, record, MarkupRenderer(self.options))
            metadata["full_text"] = bool(parsed["body_text"])
        document_text = "\n\n".join(block for block in [metadata["title"], *blocks] if block)
        if not document_text:
            return None
        document_id = metadata["pmcid"]
        if not document_id and metadata["corpusid"]:
            document_id = f"s2:{metadata['corpusid']}"
        if not document_id:
            document_id = self.content_id(filepath, document_text)
        return self.document(document_text, document_id, filepath, **metadata)


def _parsed_paragraphs(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what holds the paragraphs of the older form, None if nothing does."""
    names = ("pdf_parse", "grobid_parse", "latex_parse")
    candidates = [record, *(_object(record.get(name)) for name in names)]
    parsed = [candidate for candidate in candidates if "body_text" in candidate]
    return _preferred(lambda candidate: candidate["body_text"], parsed)


def _preferred(condition: Callable[[Any], Any], values: Sequence[Any]) -> Any:
    """Return the first value that meets a condition, else the first one, None without any."""
    first = values[0] if values else None
    return next((value for value in values if condition(value)), first)


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    stated = _object(record.get("metadata"))
    source = _object(_object(record.get("content")).get("source"))
    access = _object(record.get("openaccessinfo")) or _object(source.get("oainfo"))
    external_ids = _object(record.get("externalids")) or _object(access.get("externalids"))
    ids = {str(key).lower(): _text(key, value) for key, value in external_ids.items() if value}
    pmcid = (
        ids.get("pubmedcentral")
        or ids.get("pmcid")
        or stated.get("pmcid")
        or record.get("pmc_id")
        or ""
    )
    return {
        "corpusid": _text("corpusid", record.get("corpusid") or record.get("paper_id")),
        "pmcid": f"PMC{_text('pmcid', pmcid).removeprefix('PMC')}" if pmcid else "",
        "pmid": _text(
            "pmid",
            ids.get("pubmed") or ids.get("pmid") or stated.get("pmid") or record.get("pubmed_id"),
        ),
        "doi": _text("doi", ids.get("doi") or stated.get("doi") or record.get("doi")),
        "title": " ".join(_text("title", record.get("title") or stated.get("title")).split()),
        "date": (
            _text(
                "publicationdate",
                record.get("publicationdate") or record.get("year") or stated.get("year"),
            )
            or None
        ),
        "license": license_name(_text("license", access.get("license"))),
    }


def _text(key: str, value: Any) -> str:
    """Return a text or number as text, "" for null.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, dict | list):
        raise ValueError(f"{key!r} is {type(value).__name__}, not text")
    return str(value or "")


def _object(value: Any) -> dict[str, Any]:
    """Return a value that is an object; {} for null and anything else."""
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; [] for null and anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _paragraphs(
    parsed: dict[str, Any], record: dict[str, Any], renderer: MarkupRenderer
) -> list[str]:
    """Return the blocks of the older form.

    Paragraphs with spans for citations and for references to figures and tables.
    """
    works = {name: _work(entry) for name, entry in _object(parsed.get("bib_entries")).items()}
    figures = {name: _object(entry) for name, entry in _object(parsed.get("ref_entries")).items()}
    pending = dict(figures)
    blocks = []
    section = None
    abstract = parsed.get("abstract") or record.get("abstract") or []
    if isinstance(abstract, str):
        abstract = [{"text": abstract}] if abstract else []
    parts = [(part, "Abstract") for part in _objects(abstract)]
    parts += [(part, part.get("section") or "") for part in _objects(parsed["body_text"])]
    for part, name in parts:
        number = part.get("sec_num") or ""
        if (number, name) != section:
            section = (number, name)
            depth = len(str(number).rstrip(".").split(".")) if number else 1
            blocks.append(heading(depth, name))
        blocks.append(_with_spans(part, works, figures, renderer))
        for span in _objects(part.get("ref_spans")):
            if (entry := pending.pop(str(span.get("ref_id")), None)) is not None:
                blocks.append(_figure_or_table(entry, renderer))
    blocks += [_figure_or_table(entry, renderer) for entry in pending.values()]
    return [block for block in blocks if block]


def _with_spans(
    part: dict[str, Any],
    works: dict[str, tuple[str, str]],
    figures: dict[str, Any],
    renderer: MarkupRenderer,
) -> str:
    """Return a paragraph with its citations and references rendered."""
    text = _text("text", part.get("text"))
    replacements = []
    for span in filter(_has_offsets, _objects(part.get("cite_spans"))):
        work = works.get(span.get("ref_id") or "")
        marker = text[span["start"] : span["end"]]
        citation = renderer.citation(marker, [work] if work else [])
        replacements.append(Replacement(span["start"], span["end"], citation))
    for span in filter(_has_offsets, _objects(part.get("ref_spans"))):
        caption = _object(figures.get(str(span.get("ref_id")))).get("text") or ""
        reference = renderer.reference(text[span["start"] : span["end"]], caption)
        replacements.append(Replacement(span["start"], span["end"], reference))
    return tidy(" ".join(replaced(text, replacements).split()))


def _has_offsets(span: dict[str, Any]) -> bool:
    return isinstance(span.get("start"), int) and isinstance(span.get("end"), int)


def _figure_or_table(entry: dict[str, Any], renderer: MarkupRenderer) -> str:
    type_name = str(entry.get("type_str") or entry.get("type") or "")
    is_table = type_name.startswith("tab")
    number = entry.get("fig_num") or entry.get("num") or ""
    name = "Table" if is_table else "Figure"
    label = f"{name} {number}" if number else ""
    caption = " ".join(str(entry.get("text") or "").split())
    return renderer.figure_or_table("table" if is_table else "fig", label, caption)


def _work(entry: Any) -> tuple[str, str]:
    """Return title and first author's last name of an entry of the bibliography."""
    entry = _object(entry)
    title = " ".join(str(entry.get("title") or "").split())
    authors = entry.get("authors") or []
    first = (authors[0] if authors and isinstance(authors, list) else authors) or {}
    name = str(first.get("last") or "") if isinstance(first, dict) else str(first)
    return title, name
