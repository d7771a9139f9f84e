"""Curated documents for perplexity: reading them from a folder of JSONL files."""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.question_sets import jsonl
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a curated corpus."""

    id: str
    text: str
    source: str = ""
    """Where it comes from, where its metadata say so; perplexity is given by source too."""


def files(folder: str | Path) -> list[Path]:
    """Return the `.jsonl` and `.jsonl.gz` files of a folder by name.

    Raises:
        DataError: there is no such folder, or no such file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; the task reads its documents from there (a path below"
            " --data)"
        )
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith((".jsonl", ".jsonl.gz")) and not path.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder} holds no .jsonl or .jsonl.gz file")
    return found


def read(folder: str | Path, limit: int | None = None) -> list[Document]:
    """Read the documents of a folder, or a sample of `limit` of them, by the SHA-256 of their ids.

    So the sample is spread over all files, and is the same in any order of documents and files.

    Raises:
        DataError: a file is damaged, a record has no id or text, an id comes twice, or there are no
            documents.
    """
    documents: dict[str, Document] = {}
    for where, document in _documents(files(folder)):
        if document.id in documents:
            raise DataError(
                f"{where}: key 'id': {document.id!r} comes a second time; ids must be unique"
            )
        documents[document.id] = document
    if not documents:
        raise DataError(f"{folder} holds no documents")
    if limit is None or limit >= len(documents):
        return list(documents.values())
    return heapq.nsmallest(
        limit,
        documents.values(),
        key=lambda document: hashlib.sha256(document.id.encode()).digest(),
    )


def _documents(paths: list[Path]) -> Iterator[tuple[str, Document]]:
    for path in paths:
        for where, record in jsonl.records(path):
            metadata = record.get("metadata")
            source = metadata.get("source") if isinstance(metadata, dict) else None
            found = Document(
                jsonl.identifier(record, "id", where),
                jsonl.text(record, "text", where),
                source if isinstance(source, str) else "",
            )
            yield where, found
