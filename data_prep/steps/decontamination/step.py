"""The step `decontaminate`.

Documents that hold text of evaluation items are dropped, redacted or reported, with the matches.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datatrove.data import Document

from data_prep.steps.decontamination.items import read_items
from data_prep.steps.decontamination.matches import COMMON_PHRASES, find_matches, read_phrases
from data_prep.steps.decontamination.ngrams import Index, build_index, normal_form
from data_prep.steps.global_step import PreparedFilter
from galen.atomic import atomic_file
from galen.errors import DataError


class Decontamination(PreparedFilter):
    """Looks for sequences of words that documents share with evaluation items."""

    name = "decontaminate"

    def __init__(
        self,
        eval_datasets: Sequence[str],
        fields: Sequence[str],
        n_grams: int,
        min_words: int,
        min_ratio: float,
        max_item_frequency: int,
        common_phrases: str | None,
        action: Literal["drop", "redact", "report"],
    ) -> None:
        super().__init__()
        self.eval_datasets, self.fields, self.n_grams, self.min_words, self.min_ratio = (
            eval_datasets,
            fields,
            n_grams,
            min_words,
            min_ratio,
        )
        self.max_item_frequency, self.phrases, self.action = (
            max_item_frequency,
            Path(common_phrases or COMMON_PHRASES),
            action,
        )
        self.folder: Path | None = None

    def check(self) -> None:
        """Read the items and the phrases once."""
        if not self.phrases.is_file():
            raise DataError(f"decontaminate.common_phrases: there is no file {self.phrases}")
        for _ in read_items(self.eval_datasets, self.fields):
            pass

    def prepare(self, folder: Path) -> None:
        """Build the index."""
        self.folder = folder
        path = folder / "index.npz"
        if path.exists():
            return
        items = read_items(self.eval_datasets, self.fields)
        index = build_index(
            items, self.n_grams, self.min_words, self.max_item_frequency, read_phrases(self.phrases)
        )
        if not index.grams:
            raise DataError(
                f"{', '.join(self.eval_datasets)}: no field has {self.min_words} words or more;"
                " lower decontaminate.min_words"
            )
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            index.save(file)  # type: ignore[arg-type]

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents that stay, and write what was found to `matches/<rank>.jsonl`."""
        assert self.folder is not None, "prepare() comes first"
        self._index = Index.load(self.folder / "index.npz")
        self._hasher = self._index.hasher()
        with (
            atomic_file(self.folder / f"matches/{rank:05d}.jsonl") as path,
            path.open("w", encoding="utf-8") as self._log,
        ):
            yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Look at one document."""
        text = normal_form(doc.text)
        words, spans = self._hasher(text)
        matches = [
            match for match in find_matches(self._index, words) if match.ratio >= self.min_ratio
        ]
        if not matches:
            return True
        for match in matches:
            file, item, field, _ = self._index.fields[match.field]
            start, end = spans[match.span[0]][0], spans[match.span[1] - 1][1]
            record = {
                "document": doc.id,
                "file": file,
                "item": item,
                "field": field,
                "ratio": round(match.ratio, 4),
            }
            record |= {
                "span_words": match.span[1] - match.span[0],
                "span": text[start:end],
                "action": self.action,
            }
            self._log.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self.action == "drop":
            return (
                False,
                f"in {self._index.fields[max(matches, key=lambda match: match.ratio).field][0]}",
            )
        self.stat_update("found_documents")
        if self.action == "redact":
            self.stat_update("changed_documents")
            doc.text = _without(text, spans, np.any([match.covered for match in matches], axis=0))
            return bool(doc.text) or (False, "nothing else")
        return True

    def finish(self, folder: Path, tasks: int) -> dict[str, Any]:
        """Publish the matches by document and by item.

        The files are `contamination.jsonl` and `contamination_items.jsonl`.
        """
        items: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        documents = set()
        with (
            atomic_file(folder / "publish/contamination.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            for task in range(tasks):
                for line in _lines(folder / f"matches/{task:05d}.jsonl"):
                    file.write(line)
                    match = json.loads(line)
                    documents.add(match["document"])
                    found = items[match["file"], match["item"]]
                    found[match["document"]] = max(
                        match["ratio"], found.get(match["document"], 0.0)
                    )
        kept = "dropped" if self.action == "drop" else self.action
        with (
            atomic_file(folder / "publish/contamination_items.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            for (name, item), found in sorted(items.items()):
                by_ratio = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
                record = {"file": name, "id": item, "ratio": by_ratio[0][1], "action": kept}
                file.write(
                    json.dumps(
                        record
                        | {"documents": [{"id": key, "ratio": ratio} for key, ratio in by_ratio]}
                    )
                    + "\n"
                )
        known = {(name, item) for name, item, _, _ in Index.load(folder / "index.npz").fields}
        by_file = {name: {"items": 0, "found": 0} for name, _ in sorted(known)}
        for name, item in known:
            by_file[name]["items"] += 1
            by_file[name]["found"] += (name, item) in items
        return {"documents": len(documents), "action": self.action, "files": by_file}


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Unlike `str.splitlines`, it does not split at a separator such as U+2028 inside a text.
    """
    with path.open(encoding="utf-8") as file:
        yield from file


def _without(text: str, spans: Sequence[tuple[int, int]], covered: np.ndarray[Any, Any]) -> str:
    """Return the text without the covered words and what stands between neighbouring ones."""
    parts, position, places = [], 0, np.flatnonzero(covered).tolist()
    for number, place in enumerate(places):
        start, end = spans[place]
        joined = number > 0 and places[number - 1] == place - 1
        if not joined:
            parts.append(text[position:start])
        position = end
    parts.append(text[position:])
    return "".join(parts).strip()
