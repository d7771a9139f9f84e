"""Readers of raw sources, one class per file format, and their names in recipes.

To add one: a file with a subclass of `SourceReader` and, where it has options of its own, of
`ReaderOptions`; and its line below.
"""

from data_prep.readers.base import SourceReader
from data_prep.readers.guidelines import GuidelinesReader
from data_prep.readers.jats import JatsReader
from data_prep.readers.medline import MedlineReader
from data_prep.readers.pdf import PdfReader
from data_prep.readers.records import RecordsReader
from data_prep.readers.s2orc import S2orcReader
from data_prep.readers.tei import TeiReader
from data_prep.readers.text import TextReader
from data_prep.readers.warc import WarcReader
from data_prep.readers.web_page import HtmlReader

READERS: dict[str, type[SourceReader]] = {
    "medline": MedlineReader,
    "jats": JatsReader,
    "s2orc": S2orcReader,
    "tei": TeiReader,
    "guidelines": GuidelinesReader,
    "records": RecordsReader,
    "text": TextReader,
    "html": HtmlReader,
    "warc": WarcReader,
    "pdf": PdfReader,
}
