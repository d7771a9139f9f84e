"""A global shuffle in bounded memory.

Documents are dealt to buckets by a hash, and each bucket is sorted by it.

The hash is that of the seed, the identifier and the number of the repeat, so the order of the
corpus depends on nothing else: not on the order of the input, not on workers.
"""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path

import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.curation.recipe import SPLITS, Shuffle
from data_prep.curation.stages import Stages
from data_prep.curation.writers import open_gzip
from data_prep.text.hashing import stable_hash


class Scatter(PipelineStep):
    """Deals the lines of `<split>/<rank>.jsonl.gz` to `<bucket>/<split>/<rank>.jsonl.gz`.

    Each line is written after its hash of 16 digits. Buckets divide the hashes evenly and in order.
    One file is open for each bucket and split.
    """

    type = "SHUFFLE"
    name = "scatter"

    def __init__(self, ordered: str, scattered: str, buckets: int, seed: int) -> None:
        super().__init__()
        self.ordered = Path(ordered)
        self.scattered = Path(scattered)
        self.buckets = buckets
        self.seed = seed

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the files of this task."""
        for split in SPLITS:
            path = self.ordered / split / f"{rank:05d}.jsonl.gz"
            if path.exists():
                self._deal(path, split, rank)
        yield from ()

    def _deal(self, path: Path, split: str, rank: int) -> None:
        files = {}
        last_id = ""
        repeat = 0
        with gzip.open(path, "rb") as lines:
            for line in lines:
                id = orjson.loads(line)["id"]
                repeat = repeat + 1 if id == last_id else 0  # repeats follow each other
                last_id = id
                position = stable_hash("shuffle", self.seed, id, repeat)
                bucket = position * self.buckets >> 64
                if bucket not in files:
                    folder = self.scattered / f"{bucket:05d}" / split
                    folder.mkdir(parents=True, exist_ok=True)
                    files[bucket] = open_gzip(folder / f"{rank:05d}.jsonl.gz", level=1)
                files[bucket].write(b"%016x" % position + line)
        for file in files.values():
            file.close()


class Gather(PipelineStep):
    """Sorts the lines of a bucket in memory and writes them to `<split>/<bucket>.jsonl.gz`."""

    type = "SHUFFLE"
    name = "gather"

    def __init__(self, scattered: str, corpus: str) -> None:
        super().__init__()
        self.scattered = Path(scattered)
        self.corpus = Path(corpus)

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the files of this bucket."""
        for split in SPLITS:
            rows = []
            for path in sorted((self.scattered / f"{rank:05d}" / split).glob("*.jsonl.gz")):
                with gzip.open(path, "rb") as lines:
                    rows += list(lines)
            if rows:
                (self.corpus / split).mkdir(parents=True, exist_ok=True)
                with open_gzip(self.corpus / split / f"{rank:05d}.jsonl.gz", level=6) as file:
                    file.writelines(row[16:] for row in sorted(rows))
                self.stat_update("documents", value=len(rows))
        yield from ()


def shuffle(settings: Shuffle, size: int, tasks: int, folder: Path, stages: Stages) -> None:
    """Shuffle `folder/ordered` into `folder/corpus`; `size` is the bytes of its text."""
    buckets = max(1, math.ceil(size / (settings.bucket_megabytes * 1e6)))
    ordered = str(folder / "ordered")
    scattered = str(folder / "scattered")
    corpus = str(folder / "corpus")
    stages.run_tasks("scatter", [Scatter(ordered, scattered, buckets, settings.seed)], tasks)
    stages.run_tasks("gather", [Gather(scattered, corpus)], buckets)
