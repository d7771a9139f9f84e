"""Sources of a curated corpus, with the licenses of their documents."""

from pathlib import Path

from galen import manifest
from galen.errors import DataError


def read(folder: Path) -> list[tuple[str, int, str]]:
    """Return name, documents and license of each source of a curated corpus.

    Raises:
        DataError: the folder has no manifest of `galen curate`.
    """
    record = manifest.read(folder, "curate")
    try:
        licenses = {item["source"]: item["license"] for item in record["inputs"]}
        return [
            (name, int(counts["kept"]), licenses.get(name) or "each document's own")
            for name, counts in record["counts"]["sources"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{folder / manifest.NAME} lacks the counts or licenses of sources"
        ) from None
