"""Near-duplicates by MinHash: datatrove's signatures and pairs, and a choice among the documents of a cluster that is written down here.

datatrove's own third step keeps the document that its union of sets happens to end at. Here pairs are joined to clusters, and of each the
longest text stays, or the first; this hangs on the documents and their order alone, not on workers.
"""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig

from data_prep.corpus_step import Context, CorpusStep, VerdictFilter, load_notes, save_verdicts
from data_prep.dedup.clusters import clusters_of
from data_prep.words import Words
from galen.atomic import atomic_file

_NOTE = np.dtype([("length", "<u4"), ("id", "S64")])


class _Signatures(MinhashDedupSignature):
    """datatrove's signatures, over words that need no spaCy, passing the documents on; also notes their lengths and identifiers."""

    name = "minhash"

    def __init__(self, folder: str, config: MinhashConfig) -> None:
        super().__init__(f"{folder}/signatures", config, language=Words())
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents unchanged; the signatures are on disk, sorted, when the last one is taken."""
        notes: list[tuple[int, bytes]] = []
        paths = [Path(f"{self.folder}/signatures/bucket_{bucket:03d}/{rank:05d}.minhash.sig") for bucket in range(self.config.num_buckets)]
        pattern = f"<{self.config.hashes_per_bucket}{self.config.hash_config.struct_format}I"
        with contextlib.ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for number, document in enumerate(data):
                notes.append((len(document.text), document.id.encode()[:64]))
                shingles = self.get_shingles(document.text)
                if shingles.size:
                    for file, part in zip(files, self.get_signature(shingles), strict=True):
                        file.write(struct.pack(pattern, *part, number))
                yield document
        for path in paths:  # datatrove merges sorted files
            row = np.dtype([(f"hash{n}", "<u8") for n in range(self.config.hashes_per_bucket)] + [("document", "<u4")])
            rows = np.fromfile(path, dtype=row)
            rows.sort(order=row.names)
            with atomic_file(path) as sorted_path:
                rows.tofile(sorted_path)
        with atomic_file(f"{self.folder}/notes/{rank:05d}.npy") as path, path.open("wb") as file:
            np.save(file, np.array(notes, dtype=_NOTE))


class NearDuplicates(CorpusStep):
    """Keeps one document of each cluster of near-duplicates and lists the clusters in `duplicates.jsonl` of the corpus.

    Memory while it decides: 150 bytes a document, 100 for each pair found, and some hundred for each document in a cluster.
    """

    name = "near_duplicate"

    def __init__(
        self, ngram: int = 5, buckets: int = 14, hashes: int = 8, keep: Literal["longest", "first"] = "longest", seed: int = 1
    ) -> None:
        # numbers stay as they are: in medicine they are content. 64 bits: with 32 there would be false pairs among millions of documents
        self.config = MinhashConfig(
            ngram,
            buckets,
            hashes,
            seed,
            norm_config=TextNormConfig(norm_numbers=False),
            hash_config=HashConfig(precision=64, hash_fc="sha1"),
        )
        self.keep = keep

    def notes(self, context: Context) -> list[PipelineStep]:
        """Signatures and lengths."""
        return [_Signatures(str(context.folder), self.config)]

    def decide(self, context: Context) -> None:
        """Find pairs, one task for each bucket; then clusters, and the document of each that stays."""
        pairs_of = MinhashDedupBuckets(str(context.folder / "signatures"), str(context.folder / "pairs"), config=self.config)
        context.run("pairs", [pairs_of], self.config.num_buckets)
        notes = load_notes(context.folder / "notes", context.tasks)
        starts = np.cumsum([0, *map(len, notes)])
        length = np.concatenate([rows["length"] for rows in notes]).astype(np.int64)
        names = np.concatenate([rows["id"] for rows in notes])
        verdicts, sizes = np.zeros(len(length), dtype=np.uint8), []
        with atomic_file(context.folder / "publish/duplicates.jsonl") as path, path.open("w", encoding="utf-8") as file:
            for members in clusters_of(self._pairs(context.folder / "pairs", starts)):
                best = members[0] if self.keep == "first" else max(members, key=lambda member: (length[member], -member))
                sizes.append(len(members))
                verdicts[[member for member in members if member != best]] = 1
                record = {"kept": names[best].decode(), "dropped": [names[member].decode() for member in members if member != best]}
                file.write(json.dumps(record) + "\n")
        save_verdicts(context.folder / "verdicts", verdicts, notes)
        histogram = {int(size): sizes.count(size) for size in sorted(set(sizes))}
        context.report.update(clusters=len(sizes), documents=sum(sizes), sizes=histogram)

    def _pairs(self, folder: Path, starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the pairs of documents, numbered over all tasks."""
        rows = [np.fromfile(path, dtype="<u4").reshape(-1, 4).astype(np.int64) for path in sorted(folder.glob("*.dups"))]
        joined = np.concatenate(rows) if rows else np.empty((0, 4), np.int64)
        return np.unique(np.stack([starts[joined[:, 0]] + joined[:, 1], starts[joined[:, 2]] + joined[:, 3]], axis=1), axis=0)

    def apply(self, context: Context) -> PipelineStep:
        """Drop the others."""
        return VerdictFilter(self.name, str(context.folder / "verdicts"), ["like a kept one"])
