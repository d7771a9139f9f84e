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
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import StepSettings
from data_prep.steps.dedup.clusters import clusters_of
from data_prep.steps.global_step import (
    Array,
    Context,
    DecisionFilter,
    GlobalStep,
    save_array,
    save_decisions,
)
from data_prep.text.words import Words, searchable
from galen.atomic import atomic_file
from galen.recipe import STRICT

FEATURES = np.dtype([("length", "<u4"), ("id", "S64"), ("signed", "?")])
_MULTIPLIER = 0x9E3779B97F4A7C15


class _Signatures(MinhashDedupSignature):
    """datatrove's signatures, over words that need no spaCy, passing the documents on.

    Also writes their lengths and identifiers to `features/<rank>.npy`.

    Writes `signatures/<rank>.npy`, uint64 of shape (buckets, documents with a signature): one hash
    of the hashes of each bucket. Two different buckets have the same with a probability of 2^-64.
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
        features: list[tuple[int, bytes, bool]] = []
        buckets: list[Array] = []
        for document in data:
            shingles = self.get_shingles(searchable(document.text))
            is_signed = bool(shingles.size)
            features.append((len(document.text), document.id.encode()[:64], is_signed))
            if is_signed:
                hashes = np.array(self.get_signature(shingles), dtype=np.uint64)
                buckets.append((hashes * powers).sum(axis=1, dtype=np.uint64))
            yield document
        signatures = np.array(buckets, dtype=np.uint64).reshape(-1, self.config.num_buckets).T
        name = f"{rank:05d}.npy"
        save_array(self.folder / "signatures" / name, np.ascontiguousarray(signatures))
        save_array(self.folder / "features" / name, np.array(features, dtype=FEATURES))


class _Features:
    """The features of all tasks on disk; documents are numbered over all tasks."""

    def __init__(self, folder: Path, tasks: int) -> None:
        self.tasks = [np.load(folder / f"{task:05d}.npy", mmap_mode="r") for task in range(tasks)]
        self.starts = np.cumsum([0, *map(len, self.tasks)])

    def __getitem__(self, number: int) -> Any:
        task = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.tasks[task][number - self.starts[task]]

    def id_of(self, number: int) -> str:
        """Return the identifier of a document, at most 64 bytes of it."""
        return str(self[number]["id"].decode(errors="replace"))


class _Pairs(PipelineStep):
    """Task `rank` sorts that bucket of all documents and writes pairs of equal neighbours.

    They go to `pairs/<rank>.npy`, an array of shape (pairs, 2). Memory: about 40 bytes a document.
    """

    type = "DEDUP"
    name = "pairs"

    def __init__(self, folder: Path, tasks: int) -> None:
        super().__init__()
        self.folder = folder
        self.tasks = tasks

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the pairs of this bucket."""
        hashes = []
        numbers = []
        start = 0
        for task in range(self.tasks):
            signatures = np.load(self.folder / f"signatures/{task:05d}.npy", mmap_mode="r")
            hashes.append(np.array(signatures[rank]))
            signed = np.load(self.folder / f"features/{task:05d}.npy", mmap_mode="r")["signed"]
            numbers.append((start + np.flatnonzero(signed)).astype(np.uint32))
            start += len(signed)
        bucket = np.concatenate(hashes)
        number = np.concatenate(numbers)
        order = np.argsort(bucket, kind="stable")  # of equal ones the documents stay in order
        bucket = bucket[order]
        number = number[order]
        equal = np.flatnonzero(bucket[1:] == bucket[:-1])
        pairs = np.stack([number[equal], number[equal + 1]], axis=1)
        save_array(self.folder / f"pairs/{rank:05d}.npy", pairs)
        yield from ()


@dataclass(kw_only=True, config=STRICT)
class MinhashDedupSettings(StepSettings):
    """Drop near-duplicates by MinHash (datatrove); of a cluster one document stays."""

    step: Literal["minhash_dedup"] = "minhash_dedup"
    n_grams: int = Field(default=5, ge=1)
    """Words in a shingle."""

    num_buckets: int = Field(default=14, ge=1)
    """Buckets (bands) of the signature."""

    hashes_per_bucket: int = Field(default=8, ge=1)
    """Hashes in a bucket.

    Pairs are found with probability 1 - (1 - s^hashes_per_bucket)^num_buckets at a similarity s.
    """

    keep: Literal["longest", "first"] = "longest"
    """Which stays: the longest text (of equals the first), or the first in the recipe's order."""

    seed: int = 1
    """Of the hash functions."""


class MinhashDedup(GlobalStep[MinhashDedupSettings]):
    """Keeps one document of each cluster of near-duplicates.

    The clusters are listed in `duplicates.jsonl` of the corpus.

    Memory: 47 bytes a document with 2 % of them in clusters, of which each takes some hundred
    (benchmarks/curate_memory.py).
    """

    name = "minhash_dedup"
    Settings = MinhashDedupSettings

    def __init__(self, settings: MinhashDedupSettings) -> None:
        super().__init__(settings)
        # numbers stay as they are: in medicine they are content. 64 bits: with 32 there would be
        # false pairs among millions of documents
        self.config = MinhashConfig(
            settings.n_grams,
            settings.num_buckets,
            settings.hashes_per_bucket,
            settings.seed,
            norm_config=TextNormConfig(norm_numbers=False),
            hash_config=HashConfig(precision=64, hash_fc="sha1"),
        )

    def collect(self, context: Context) -> list[PipelineStep]:
        """Collect signatures and lengths."""
        return [_Signatures(context.folder, self.config)]

    def decide(self, context: Context) -> None:
        """Find pairs, one task for each bucket; then clusters and the document that each keeps."""
        context.run("pairs", [_Pairs(context.folder, context.tasks)], self.config.num_buckets)
        features = _Features(context.folder / "features", context.tasks)
        decisions = np.zeros(features.starts[-1], dtype=np.uint8)
        sizes = []
        with (
            atomic_file(context.folder / "publish/duplicates.jsonl") as path,
            path.open("w", encoding="utf-8") as file,
        ):
            for members in clusters_of(self._pairs(context.folder / "pairs")):
                best = self._best(members, features)
                others = [member for member in members if member != best]
                decisions[others] = 1
                sizes.append(len(members))
                record = {
                    "kept": features.id_of(best),
                    "dropped": [features.id_of(member) for member in others],
                }
                file.write(json.dumps(record) + "\n")
        save_decisions(context.folder / "decisions", decisions, features.tasks)
        histogram = {int(size): sizes.count(size) for size in sorted(set(sizes))}
        context.report.update(clusters=len(sizes), documents=sum(sizes), sizes=histogram)

    def _best(self, members: list[int], features: "_Features") -> int:
        """Return the document of a cluster that is kept."""
        if self.settings.keep == "first":
            return members[0]
        return max(members, key=lambda member: (features[member]["length"], -member))

    def _pairs(self, folder: Path) -> Array:
        """Return the different pairs of all buckets, shape (pairs, 2)."""
        joined_pairs: Array = np.empty(0, dtype=np.uint64)
        for bucket in range(self.config.num_buckets):
            pairs = np.load(folder / f"{bucket:05d}.npy").astype(np.uint64)
            joined_pairs = np.union1d(joined_pairs, pairs[:, 0] << np.uint64(32) | pairs[:, 1])
        return np.stack(
            [joined_pairs >> np.uint64(32), joined_pairs & np.uint64(2**32 - 1)], axis=1
        ).astype(np.int64)

    def apply(self, context: Context) -> PipelineStep:
        """Drop the others."""
        return DecisionFilter(
            self.name, context.folder / "decisions", ["near-duplicate"], context.exclusion_writer
        )
