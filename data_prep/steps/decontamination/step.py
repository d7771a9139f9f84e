"""The step `decontaminate`.

Documents that hold text of evaluation items are dropped, redacted or reported, with the matches.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentWriter, Fraction, PreparedFilter, StepSettings
from data_prep.steps.decontamination.items import item_files, read_items
from data_prep.steps.decontamination.matches import (
    COMMON_PHRASES,
    Match,
    find_matches,
    read_phrases,
)
from data_prep.steps.decontamination.ngrams import Index, build_index, normal_form
from galen.atomic import atomic_file
from galen.errors import DataError
from galen.recipe import STRICT


@dataclass(kw_only=True, config=STRICT)
class DecontaminationSettings(StepSettings):
    """Find text of evaluation sets; drop the documents or redact the spans."""

    step: Literal["decontaminate"] = "decontaminate"
    eval_datasets: list[str] = Field(min_length=1)
    """JSONL files (or folders, globs) with the evaluation items."""

    fields: list[str] = Field(
        default_factory=lambda: ["question", "options", "context"], min_length=1
    )
    """Fields of an item to look for, each separately. Lists and dictionaries are joined."""

    n_grams: int = Field(default=13, ge=3)
    """Words of a matching sequence.

    In Chinese and Japanese, characters count, and 1.5 times as many are needed.
    """

    min_words: int = Field(default=8, ge=3)
    """Fields with fewer words are ignored; those between the two numbers must match completely."""

    min_ratio: Fraction = 0.0
    """Fraction of a field's words that a document must hold, besides one sequence, to count."""

    max_item_frequency: int = Field(default=10, ge=2)
    """A sequence in this many different items is a common phrase and does not count."""

    common_phrases: str | None = None
    """File of phrases, one a line, that do not count either.

    null takes data_prep/steps/decontamination/common_phrases.txt.
    """

    action: Literal["drop", "redact", "report"] = "drop"
    """drop the document, redact the matched spans, or only record them."""

    def input_files(self) -> list[Path]:
        """Return the evaluation items and the list of phrases."""
        phrases = [Path(self.common_phrases)] if self.common_phrases else []
        return [*item_files(self.eval_datasets), *phrases]


class Decontamination(PreparedFilter[DecontaminationSettings]):
    """Looks for sequences of words that documents have in common with evaluation items."""

    name = "decontaminate"
    Settings = DecontaminationSettings

    def __init__(
        self, settings: DecontaminationSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.phrases = Path(settings.common_phrases or COMMON_PHRASES)
        self.folder: Path | None = None

    def check(self) -> None:
        """Read the items and the phrases once."""
        if not self.phrases.is_file():
            raise DataError(f"decontaminate.common_phrases: there is no file {self.phrases}")
        for _ in read_items(self.settings.eval_datasets, self.settings.fields):
            pass

    def prepare(self, folder: Path) -> None:
        """Build the index."""
        self.folder = folder
        path = folder / "index.npz"
        if path.exists():
            return
        settings = self.settings
        index = build_index(
            read_items(settings.eval_datasets, settings.fields),
            settings.n_grams,
            settings.min_words,
            settings.max_item_frequency,
            read_phrases(self.phrases),
        )
        if not index.grams:
            raise DataError(
                f"{', '.join(settings.eval_datasets)}: no field has {settings.min_words} words or"
                " more; lower decontaminate.min_words"
            )
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            index.save(file)  # type: ignore[arg-type]

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents that stay, and write the matches to `matches/<rank>.jsonl`."""
        assert self.folder is not None, "prepare() comes first"
        self._index = Index.load(self.folder / "index.npz")
        self._hasher = self._index.hasher()
        with (
            atomic_file(self.folder / f"matches/{rank:05d}.jsonl") as path,
            path.open("w", encoding="utf-8") as self._log,
        ):
            yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, drop or redact one document."""
        text = normal_form(doc.text)
        words, spans = self._hasher(text)
        matches = [
            match
            for match in find_matches(self._index, words)
            if match.ratio >= self.settings.min_ratio
        ]
        if not matches:
            return True
        for match in matches:
            record = self._record(doc.id, text, spans, match)
            self._log.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self.settings.action == "drop":
            best = max(matches, key=lambda match: match.ratio)
            file = self._index.fields[best.field][0]
            return False, f"in {file}"
        self.stat_update("found_documents")
        if self.settings.action == "redact":
            self.stat_update("changed_documents")
            covered = np.any([match.covered for match in matches], axis=0)
            doc.text = _without(text, spans, covered)
            if not doc.text:
                return False, "nothing left"
        return True

    def _record(
        self, document_id: str, text: str, spans: Sequence[tuple[int, int]], match: Match
    ) -> dict[str, Any]:
        """Return a match as a record of contamination.jsonl."""
        file, item, field, _ = self._index.fields[match.field]
        first, end = match.span
        return {
            "document": document_id,
            "file": file,
            "item": item,
            "field": field,
            "ratio": round(match.ratio, 4),
            "span_words": end - first,
            "span": text[spans[first][0] : spans[end - 1][1]],
            "action": self.settings.action,
        }

    def finish(self, folder: Path, tasks: int) -> dict[str, Any]:
        """Publish the matches by document and by item.

        The files are `contamination.jsonl` and `contamination_items.jsonl`.
        """
        ratios: _Ratios = defaultdict(dict)
        documents = set()
        with (
            atomic_file(folder / "publish/contamination.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            for task in range(tasks):
                for line in _lines(folder / f"matches/{task:05d}.jsonl"):
                    file.write(line)
                    match = json.loads(line)
                    document = match["document"]
                    documents.add(document)
                    of_item = ratios[match["file"], match["item"]]
                    of_item[document] = max(match["ratio"], of_item.get(document, 0.0))
        with (
            atomic_file(folder / "publish/contamination_items.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            self._write_items(ratios, file)
        known = {(name, item) for name, item, _, _ in Index.load(folder / "index.npz").fields}
        by_file = {name: {"items": 0, "found": 0} for name, _ in sorted(known)}
        for name, item in known:
            by_file[name]["items"] += 1
            by_file[name]["found"] += (name, item) in ratios
        return {"documents": len(documents), "action": self.settings.action, "files": by_file}

    def _write_items(self, ratios: "_Ratios", file: TextIO) -> None:
        """Write a line for each item that was found, its documents by falling ratio."""
        action = "dropped" if self.settings.action == "drop" else self.settings.action
        for (name, item), of_item in sorted(ratios.items()):
            by_ratio = sorted(of_item.items(), key=lambda pair: (-pair[1], pair[0]))
            record = {
                "file": name,
                "id": item,
                "ratio": by_ratio[0][1],
                "action": action,
                "documents": [{"id": key, "ratio": ratio} for key, ratio in by_ratio],
            }
            file.write(json.dumps(record) + "\n")


_Ratios = dict[tuple[str, str], dict[str, float]]
"""By file and item: the highest ratio of each document."""


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Unlike `str.splitlines`, it does not split at a separator such as U+2028 inside a text.
    """
    with path.open(encoding="utf-8") as file:
        yield from file


def _without(text: str, spans: Sequence[tuple[int, int]], covered: np.ndarray[Any, Any]) -> str:
    """Return the text without the covered words and the text between neighbouring ones."""
    remaining = []
    position = 0
    previous = None
    for word in np.flatnonzero(covered).tolist():
        start, end = spans[word]
        if previous is None or word != previous + 1:
            remaining.append(text[position:start])
        position = end
        previous = word
    remaining.append(text[position:])
    return "".join(remaining).strip()
