"""PDF files: their text by pdfium; scanned pages by OCR where the extra `ocr` is installed."""

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.readers.base import SourceReader
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.pdf_text import front_back_matter, joined_pages, looks_scanned
from data_prep.readers.record import Record, RecordRejectedError
from galen.recipe import STRICT

_SCALE = 200 / 72  # pixels per point: 200 dots per inch
_MAX_LISTED = 20
"""Scanned pages that a report lists by number."""


@dataclass(kw_only=True, config=STRICT)
class PdfOptions(ReaderOptions):
    """Options of PDF files."""

    drop_front_back_matter: bool = Field(
        default=False,
        description=(
            "Leave out the front and back matter (title, contents, index) of long PDF files: the"
            " first and last pages of files of 100 pages and more, by MMedLM's rule."
        ),
    )

    ocr: bool = Field(
        default=True,
        description=(
            "Recognize scanned PDF pages if the extra `ocr` is installed. Otherwise they are"
            " counted and named."
        ),
    )


class PdfReader(SourceReader):
    """Yields one document per file; the id is its name with a hash of its content.

    A scanned page (nearly no text, or mostly no letters, and an image on it) goes to OCR. Without
    OCR it is counted (`scanned pages`) and named in the quarantine file; a file without any text
    left is dropped as `scanned, no OCR`. Metadata besides what all readers give: pages, ocr_pages.
    """

    name = "pdf"
    Options = PdfOptions
    options: PdfOptions
    endings = (".pdf",)
    libraries = ("pypdfium2",)

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file."""
        return self.file_record(filepath)

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a file."""
        data = record.content
        document = self.from_data(data, filepath, self.content_id(filepath, data), record.position)
        if document is not None:
            yield document

    def from_data(
        self, data: bytes, filepath: str, document_id: str, position: str
    ) -> Document | None:
        """Return the document of a PDF file's bytes, or None when it is dropped.

        Raises:
            RecordRejectedError: it is damaged.
        """
        import pypdfium2

        try:
            file = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise RecordRejectedError("broken PDF", str(error)) from None
        try:
            count = len(file)
            matter = front_back_matter(count) if self.options.drop_front_back_matter else set()
            pages, scanned, recognized = self._pages(
                file, [number for number in range(count) if number not in matter]
            )
            stated = _stated(file)
        except pypdfium2.PdfiumError as error:  # a page that is damaged
            raise RecordRejectedError("broken PDF", str(error)) from None
        finally:
            file.close()
        self.stat_update("total")
        if scanned:
            self._report_scanned(scanned, count, filepath, position)
        language = self.options.language
        text = joined_pages(pages, language if language and len(language) == 2 else None)
        if not text:
            self.stat_update("dropped_scanned, no OCR" if scanned else "dropped_no text")
            return None
        year = (stated.get("CreationDate") or "").removeprefix("D:")[:4]
        return self.document(
            text,
            document_id,
            filepath,
            title=" ".join((stated.get("Title") or "").split()),
            date=year if year.isdecimal() else None,
            pages=count,
            ocr_pages=recognized,
        )

    def _report_scanned(self, scanned: list[int], count: int, filepath: str, position: str) -> None:
        """Count and report the scanned pages that OCR has not read."""
        self.stat_update("scanned pages", value=len(scanned))
        numbers = [str(number + 1) for number in scanned[:_MAX_LISTED]]
        if len(scanned) > _MAX_LISTED:
            numbers.append("…")
        detail = (
            f"{len(scanned)} of {count} pages are scanned; the extra ocr reads them once it is"
            " installed"
        )
        self.report(filepath, f"{position}, pages {', '.join(numbers)}", "scanned", detail)

    def _pages(self, file: Any, numbers: list[int]) -> tuple[list[str], list[int], int]:
        """Return the text of each page, the pages that stay scanned, and the number recognized."""
        pages: list[str] = []
        scanned: list[int] = []
        recognized = 0
        for number in numbers:
            page = file[number]
            text = page.get_textpage().get_text_bounded()
            if looks_scanned(text) and _has_image(page):
                if self.options.ocr and has_ocr():
                    text = _recognize(page)
                    recognized += 1
                    self.watch.restart_timer()
                else:
                    scanned.append(number)
                    text = ""
            pages.append(text)
            page.close()
        return pages, scanned, recognized


def _stated(file: Any) -> dict[str, str]:
    """Return title and date that a file states."""
    try:
        return {name: file.get_metadata_value(name) for name in ("Title", "CreationDate")}
    except UnicodeError as error:
        raise RecordRejectedError("broken PDF", f"its title or date is no text: {error}") from None


def has_ocr() -> bool:
    """Return whether the extra `ocr` is installed."""
    return importlib.util.find_spec("rapidocr") is not None


def _has_image(page: Any) -> bool:
    """Return whether an image covers at least half of the page."""
    from pypdfium2 import raw

    area = page.get_width() * page.get_height()
    for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
        left, bottom, right, top = image.get_bounds()
        if abs((right - left) * (top - bottom)) >= area / 2:
            return True
    return False


@functools.cache
def _engine() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR()


def _recognize(page: Any) -> str:
    """Return the lines that OCR reads on a page, from top to bottom."""
    result = _engine()(page.render(scale=_SCALE).to_numpy()[:, :, :3])
    return "\n".join(result.txts or ())
