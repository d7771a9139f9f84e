"""Clinical guidelines as published with MEDITRON (`epfl-llm/guidelines`).

JSONL with title, clean_text, source, url, overview.
"""

from typing import Any

from datatrove.data import Document

from data_prep.readers.records import JsonReader

# Which of the sources may be passed on, as the data card says; the others are for those who fetched
# them.
_REDISTRIBUTABLE = {"cco", "cdc", "cma", "icrc", "nice", "spor", "who", "wikidoc"}


class GuidelinesReader(JsonReader):
    """Yields a document per guideline.

    Its title, unless the text begins with it, then `clean_text`.

    The id is "guideline:<id>". Metadata besides what all readers give: origin (the source's short
    name), url, overview, redistributable.
    """

    name = "guidelines"

    def from_record(self, record: dict[str, Any], filepath: str) -> Document | None:
        """Return the document of a record."""
        text = record["clean_text"]
        if not isinstance(text, str):
            raise ValueError(f"'clean_text' is {type(text).__name__}, not text")
        title = " ".join(str(record.get("title") or "").split())
        if not text.strip():
            return None
        if title and title.lower() not in text[: len(title) + 10].lower():
            text = f"{title}\n\n{text}"
        origin = str(record.get("source") or "")
        return self.document(
            text.strip(),
            f"guideline:{record['id']}",
            filepath,
            title=title,
            publication_types=["Guideline"],
            origin=origin,
            url=record.get("url"),
            overview=record.get("overview"),
            redistributable=origin.lower() in _REDISTRIBUTABLE,
            language=[self.options.language or "en"],
        )
