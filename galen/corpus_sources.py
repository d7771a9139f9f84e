"""Sources of a curated corpus, with the licenses of their documents."""

from dataclasses import dataclass
from pathlib import Path

from galen import manifest
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """A source of a curated corpus."""

    name: str
    documents: int
    """Documents of the source that are in the corpus."""
    license: str


def read(folder: Path) -> list[CorpusSource]:
    """Return the sources of a curated corpus.

    Raises:
        DataError: the folder has no manifest of `galen curate`.
    """
    record = manifest.read(folder, "curate")
    try:
        licenses = {item["source"]: item["license"] for item in record["inputs"]}
        return [
            CorpusSource(name, int(counts["kept"]), licenses.get(name) or "each document's own")
            for name, counts in record["counts"]["sources"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{folder / manifest.NAME} lacks the counts or licenses of sources"
        ) from None
