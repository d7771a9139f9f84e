"""Counts of the finished corpus by source, language and year, and samples of it."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.curation.exclusion_writer import Samples, merge_samples
from data_prep.curation.recipe import SplitFractions
from data_prep.curation.splits import repeats_in, split_of
from data_prep.tokenization.token_count import token_counter
from galen import json_file


def language_of(document: Document) -> str:
    """Return the identified language of the text (two letters).

    Else the one that the record names, else "unknown".
    """
    if identified := document.metadata.get("text_language"):
        return str(identified)
    recorded = document.metadata.get("language") or "unknown"
    return str(recorded if isinstance(recorded, str) else recorded[0])


class Statistics(PipelineStep):
    """Passes documents on and writes `<rank>.json`: counts by source, language and year, lengths.

    Copies count as documents.

    Args:
        sources: for each task, the name of its source.
        folder: for the counts; samples go to its folder `samples`.
        tokenizer: see `data_prep.tokenization.token_count`.
        fractions: of the splits, which decide whether further repeats of a document are written.
    """

    type = "STATS"
    name = "statistics"

    def __init__(
        self, sources: Sequence[str], folder: str, tokenizer: str | None, fractions: SplitFractions
    ) -> None:
        super().__init__()
        self.sources = list(sources)
        self.folder = Path(folder)
        self.tokenizer = tokenizer
        self.fractions = fractions

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        count_tokens = token_counter(self.tokenizer)
        samples = Samples()
        cells: dict[tuple[str, str, str], list[int]] = {}
        lengths: Counter[int] = Counter()
        for document in data:
            tokens = count_tokens(document.text)
            repeats = repeats_in(split_of(document.id, self.fractions), document)
            key = (self.sources[rank], language_of(document), _year_of(document))
            cell = cells.setdefault(key, [0, 0])
            cell[0] += repeats
            cell[1] += repeats * tokens
            lengths[tokens.bit_length()] += repeats
            samples.add("kept", document)
            yield document
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {
            "cells": [[*key, *value] for key, value in sorted(cells.items())],
            "lengths": lengths,
        }
        (self.folder / f"{rank:05d}.json").write_text(json.dumps(record), encoding="utf-8")
        samples.save(self.folder / f"samples/{rank:05d}.json")


def _year_of(document: Document) -> str:
    """Return the year of publication, or "unknown"."""
    year = str(document.metadata.get("date") or "unknown")[:4]
    return year if year.isdigit() else "unknown"


def merge_statistics(folder: Path, tasks: int) -> dict[str, Any]:
    """Return the counts of all tasks.

    `cells`: rows of source, language, year, documents, tokens. `lengths`: documents by the number
    of bits of their number of tokens (n: 2^(n-1) to 2^n - 1 tokens). `tokens`: by source and
    language, and in all.
    """
    cells: dict[tuple[str, ...], Counter[str]] = {}
    lengths: Counter[int] = Counter()
    for task in range(tasks):
        record = json_file.read_object(folder / f"{task:05d}.json")
        for *key, documents, tokens in record["cells"]:
            cells.setdefault(tuple(key), Counter()).update(documents=documents, tokens=tokens)
        lengths.update({int(bits): count for bits, count in record["lengths"].items()})
    tokens_of: dict[str, dict[str, int]] = {}
    for (source, language, _), cell in sorted(cells.items()):
        by_language = tokens_of.setdefault(source, {})
        by_language[language] = by_language.get(language, 0) + cell["tokens"]
    return {
        "cells": [[*key, cell["documents"], cell["tokens"]] for key, cell in sorted(cells.items())],
        "lengths": {str(bits): count for bits, count in sorted(lengths.items())},
        "tokens": {
            "total": sum(cell["tokens"] for cell in cells.values()),
            "by_source_and_language": tokens_of,
        },
        "kept_samples": merge_samples(folder / "samples").get("kept", []),
    }
