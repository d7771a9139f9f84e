"""Near-duplicates by MinHash.

datatrove's signatures, pairs by sorting, and a choice among the documents of a cluster.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig

from data_prep.steps.dedup.clusters import clusters_of
from data_prep.steps.global_step import (
    Array,
    Context,
    CorpusStep,
    VerdictFilter,
    save_array,
    save_verdicts,
)
from data_prep.text.words import Words, searchable
from galen.atomic import atomic_file

NOTE = np.dtype([("length", "<u4"), ("id", "S64"), ("signed", "?")])
_MULTIPLIER = 0x9E3779B97F4A7C15


class _Signatures(MinhashDedupSignature):
    """datatrove's signatures, over words that need no spaCy, passing the documents on.

    Also notes their lengths and identifiers.

    Writes `signatures/<rank>.npy`, uint64 of shape (bands, documents with a signature): one hash of
    the hashes of each band. Two bands that differ have the same with a probability of 2^-64.
    """

    name = "minhash"

    def __init__(self, folder: Path, config: MinhashConfig) -> None:
        super().__init__(f"{folder}/signatures", config, language=Words())
        self.folder = folder

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged; the signatures are on disk when the last one is taken."""
        powers = np.array(
            [pow(_MULTIPLIER, power, 2**64) for power in range(self.config.hashes_per_bucket)],
            dtype=np.uint64,
        )
        notes: list[tuple[int, bytes, bool]] = []
        bands: list[Array] = []
        for document in data:
            shingles = self.get_shingles(searchable(document.text))
            notes.append((len(document.text), document.id.encode()[:64], bool(shingles.size)))
            if shingles.size:
                bands.append(
                    (np.array(self.get_signature(shingles), dtype=np.uint64) * powers).sum(
                        axis=1, dtype=np.uint64
                    )
                )
            yield document
        signed = np.array(bands, dtype=np.uint64).reshape(-1, self.config.num_buckets).T
        for folder, rows in (
            ("signatures", np.ascontiguousarray(signed)),
            ("notes", np.array(notes, dtype=NOTE)),
        ):
            save_array(self.folder / folder / f"{rank:05d}.npy", rows)


class _Notes:
    """The notes of all tasks on disk; documents are numbered over all tasks."""

    def __init__(self, folder: Path, tasks: int) -> None:
        self.parts = [np.load(folder / f"{task:05d}.npy", mmap_mode="r") for task in range(tasks)]
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __getitem__(self, number: int) -> Any:
        task = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.parts[task][number - self.starts[task]]


class _Pairs(PipelineStep):
    """Task `rank` sorts that band of all documents and writes pairs of equal neighbours.

    They go to `pairs/<rank>.npy`, an array of shape (pairs, 2). Memory: about 40 bytes a document.
    """

    type = "DEDUP"
    name = "pairs"

    def __init__(self, folder: Path, tasks: int) -> None:
        super().__init__()
        self.folder, self.tasks = folder, tasks

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the pairs of this band."""
        bands, numbers, start = [], [], 0
        for task in range(self.tasks):
            bands.append(
                np.array(np.load(self.folder / f"signatures/{task:05d}.npy", mmap_mode="r")[rank])
            )
            signed = np.load(self.folder / f"notes/{task:05d}.npy", mmap_mode="r")["signed"]
            numbers.append((start + np.flatnonzero(signed)).astype(np.uint32))
            start += len(signed)
        band, number = np.concatenate(bands), np.concatenate(numbers)
        order = np.argsort(band, kind="stable")  # of equal ones the documents stay in order
        band, number = band[order], number[order]
        same = np.flatnonzero(band[1:] == band[:-1])
        save_array(
            self.folder / f"pairs/{rank:05d}.npy",
            np.stack([number[same], number[same + 1]], axis=1),
        )
        yield from ()


class NearDuplicates(CorpusStep):
    """Keeps one document of each cluster of near-duplicates.

    The clusters are listed in `duplicates.jsonl` of the corpus.

    Memory: 47 bytes a document with 2 % of them in clusters, of which each takes some hundred
    (benchmarks/curate_memory.py).
    """

    name = "minhash_dedup"

    def __init__(
        self,
        n_grams: int,
        num_buckets: int,
        hashes_per_bucket: int,
        keep: Literal["longest", "first"],
        seed: int,
    ) -> None:
        # numbers stay as they are: in medicine they are content. 64 bits: with 32 there would be
        # false pairs among millions of documents
        self.config = MinhashConfig(
            n_grams,
            num_buckets,
            hashes_per_bucket,
            seed,
            norm_config=TextNormConfig(norm_numbers=False),
            hash_config=HashConfig(precision=64, hash_fc="sha1"),
        )
        self.keep = keep

    def notes(self, context: Context) -> list[PipelineStep]:
        """Signatures and lengths."""
        return [_Signatures(context.folder, self.config)]

    def decide(self, context: Context) -> None:
        """Find pairs, one task for each band; then clusters and the document that each keeps."""
        context.run("pairs", [_Pairs(context.folder, context.tasks)], self.config.num_buckets)
        notes = _Notes(context.folder / "notes", context.tasks)
        verdicts, sizes = np.zeros(notes.starts[-1], dtype=np.uint8), []
        with (
            atomic_file(context.folder / "publish/duplicates.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            for members in clusters_of(self._pairs(context.folder / "pairs")):
                best = (
                    members[0]
                    if self.keep == "first"
                    else max(members, key=lambda member: (notes[member]["length"], -member))
                )
                sizes.append(len(members))
                verdicts[[member for member in members if member != best]] = 1
                others = [
                    notes[member]["id"].decode(errors="replace")
                    for member in members
                    if member != best
                ]
                file.write(
                    json.dumps(
                        {"kept": notes[best]["id"].decode(errors="replace"), "dropped": others}
                    )
                    + "\n"
                )
        save_verdicts(context.folder / "verdicts", verdicts, notes.parts)
        histogram = {int(size): sizes.count(size) for size in sorted(set(sizes))}
        context.report.update(clusters=len(sizes), documents=sum(sizes), sizes=histogram)

    def _pairs(self, folder: Path) -> Array:
        """Return the different pairs of all bands, shape (pairs, 2)."""
        found: Array = np.empty(0, dtype=np.uint64)
        for band in range(self.config.num_buckets):
            pairs = np.load(folder / f"{band:05d}.npy").astype(np.uint64)
            found = np.union1d(found, pairs[:, 0] << np.uint64(32) | pairs[:, 1])
        return np.stack([found >> np.uint64(32), found & np.uint64(2**32 - 1)], axis=1).astype(
            np.int64
        )

    def apply(self, context: Context) -> PipelineStep:
        """Drop the others."""
        return VerdictFilter(self.name, context.folder / "verdicts", ["like a kept one"])
