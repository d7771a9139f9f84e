"""Splitting of a token file by the length of its documents, for mixtures that favor long ones.

    galen split-indexed --input data/train_text_document --output-prefix data/train \
        --lengths 8192 32768

writes data/train_0-8191_text_document, data/train_8192-32767_text_document and
data/train_32768_text_document (.bin, .idx and a manifest each), with the documents of so many
tokens in their order. Together they hold each document once. --input is the path of a .bin and .idx
without the ending. Memory use does not depend on the number of documents. An interrupted split
starts over.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import Array, IndexedFile, IndexedFileWriter
from galen import cli, lock, manifest
from galen.atomic import atomic_file, partial_path
from galen.errors import UsageError
from galen.progress import Progress
from galen.run_folder import RunFiles, finished
from galen.run_identity import Identity, stat_record

logger = logging.getLogger(__name__)

DOCUMENTS = 4096
"""Documents that are read at a time."""


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Documents of a range of lengths."""

    first: int
    """Fewest tokens."""
    last: int | None
    """Most tokens, None for no limit."""

    @property
    def name(self) -> str:
        """The range, as in file names."""
        return str(self.first) if self.last is None else f"{self.first}-{self.last}"


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--input", required=True, metavar="P", help="path of a .bin and .idx without the ending"
    )
    parser.add_argument(
        "--output-prefix", required=True, metavar="P", help="prefix of the output files"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        required=True,
        metavar="N",
        help="fewest tokens of a document in each file after the first, ascending",
    )
    arguments = parser.parse_args(argv)
    bounds = [0, *arguments.lengths]
    if any(first >= second for first, second in pairwise(bounds)):
        raise UsageError(f"--lengths {' '.join(map(str, arguments.lengths))}: must be ascending")
    with lock.hold(arguments.output_prefix):
        split(arguments.input, arguments.output_prefix, bounds)
    return 0


def split(prefix: str, output: str, bounds: Sequence[int]) -> None:
    """Write the documents of a token file by length, and a manifest of each range.

    Args:
        prefix: path of the token file without the ending.
        output: beginning of the names of the new files.
        bounds: fewest tokens in each range, ascending from 0.

    Raises:
        DataError: the input is damaged, or no manifest of `galen preprocess` belongs to it.
    """
    file = IndexedFile(prefix)
    file.check()
    stem, _, key = file.prefix.removesuffix("_document").rpartition("_")
    made = manifest.read(f"{stem}_manifest.json", stage="preprocess")
    buckets = [Bucket(first, second - 1) for first, second in pairwise(bounds)]
    buckets.append(Bucket(bounds[-1], None))
    bases = [Path(f"{output}_{bucket.name}_{key}_document") for bucket in buckets]
    inputs = [stat_record(file.bin), stat_record(file.idx)]
    for bucket, base in zip(buckets, bases, strict=True):
        config = {**made["config"], "document_lengths": bucket.name}
        described = Path(f"{output}_{bucket.name}_manifest.json")
        identity = Identity(config, [manifest.describe_file(file.idx)])
        if finished(str(base), described, "preprocess", identity) is not None:
            logger.info(f"{base} is already complete")
            continue
        outputs = [Path(f"{base}.bin"), Path(f"{base}.idx")]
        with RunFiles(base, outputs).working(Identity(config, inputs)):
            counts = _write_bucket(file, bucket, outputs)
            manifest.write(
                described,
                stage="preprocess",
                inputs=[file.idx],
                config=config,
                outputs=outputs,
                counts={**counts, "outputs": {key: counts}},
                tokenizer=made["tokenizer"],
            )
        print(f"{base}: {counts['documents']:,} documents, {counts['tokens']:,} tokens")


def _write_bucket(file: IndexedFile, bucket: Bucket, outputs: Sequence[Path]) -> dict[str, int]:
    """Write the documents of a range of lengths; return their counts."""
    longest = 0
    final_bin, final_idx = outputs
    lengths_path = partial_path(final_bin.with_suffix(".lengths"))
    counts_path = partial_path(final_bin.with_suffix(".counts"))
    with (
        atomic_file(final_bin) as new_bin,
        atomic_file(final_idx) as new_idx,
        Progress(f"split {bucket.name}", total=file.documents) as progress,
    ):
        writer = IndexedFileWriter(new_bin, lengths_path, counts_path, file.dtype)
        for ids, lengths, counts, sizes in _documents(file):
            chosen = sizes >= bucket.first
            if bucket.last is not None:
                chosen &= sizes <= bucket.last
            writer.add(
                ids[np.repeat(chosen, sizes)], lengths[np.repeat(chosen, counts)], counts[chosen]
            )
            longest = max(longest, int(sizes[chosen].max(initial=0)))
            progress.update(len(counts))
        writer.close()
        writer.write_index(new_idx)
    lengths_path.unlink()
    counts_path.unlink()
    return {
        "documents": writer.documents,
        "sequences": writer.sequences,
        "tokens": writer.tokens,
        "longest": longest,
    }


def _documents(file: IndexedFile) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield some documents: ids, lengths of sequences, sequences and ids of each document."""
    first_id = 0
    for start in range(0, file.documents, DOCUMENTS):
        ends: Any = file.ends[start : start + DOCUMENTS + 1]
        lengths = file.lengths[ends[0] : ends[-1]].astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(lengths)])[ends - ends[0]]
        last_id = first_id + int(bounds[-1])
        yield file.ids[first_id:last_id], lengths, np.diff(ends), np.diff(bounds)
        first_id = last_id


if __name__ == "__main__":
    cli.run(main)
