"""Readers of raw sources, one class per file format, and their names in recipes."""

from data_prep.readers.base import SourceReader
from data_prep.readers.jats import JatsReader
from data_prep.readers.medline import MedlineReader

READERS: dict[str, type[SourceReader]] = {
    "medline": MedlineReader,
    "jats": JatsReader,
}
