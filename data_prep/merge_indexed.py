"""Several token files joined into one.

    galen merge-indexed --input 'data/train_*-of-00008' --output-prefix data/train

joins the sets that `preprocess.py --shards 8` wrote: same bytes as without --shards. Each --input
is a PREFIX that has a PREFIX_manifest.json, or names one PREFIX.bin and .idx of any origin (then
--output-prefix is the new name without .bin). Memory stays small, whatever the number of documents;
files may be larger than 2^31 bytes. Killed and started again, it starts over.
"""

import errno
import glob
import logging
import os
import re
from collections.abc import Mapping, Sequence
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import (
    IndexedFile,
    write_document_ends,
    write_header,
    write_offsets,
)
from data_prep.tokenization.stats import pack_used, unpack_used
from galen import cli, lock, manifest
from galen.atomic import atomic_file
from galen.errors import DataError, UsageError
from galen.progress import Progress
from galen.run_folder import Identity, RunFiles, finished, stat_record

logger = logging.getLogger(__name__)

SHARD = re.compile(r"_(\d{5})-of-(\d{5})$")
SAME = ("config", "tokenizer")
CHUNK_BYTES = 1 << 22


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="P",
        help="prefixes, or globs of them, in the order of the output",
    )
    parser.add_argument(
        "--output-prefix", required=True, metavar="P", help="prefix of the output files"
    )
    arguments = parser.parse_args(argv)
    prefixes = find_prefixes(arguments.input)
    if Path(arguments.output_prefix).resolve() in (Path(prefix).resolve() for prefix in prefixes):
        raise UsageError(f"--output-prefix {arguments.output_prefix} is one of the inputs")
    with lock.hold(arguments.output_prefix):
        if Path(f"{prefixes[0]}_manifest.json").is_file():
            merge_jobs(prefixes, arguments.output_prefix)
        else:
            merge_files(prefixes, arguments.output_prefix)
    return 0


def find_prefixes(names: Sequence[str]) -> list[str]:
    """Return the prefixes that names or globs match, those of a glob sorted.

    Raises:
        DataError: nothing fits, or a set of shards is not complete.
    """
    result: list[str] = []
    for name in names:
        stem = re.sub(r"(\.bin|\.idx|_manifest\.json)$", "", name)
        found = [stem]
        if glob.has_magic(stem):
            found = _fitting(stem, "_manifest.json") or _fitting(stem, ".idx")
        if not found:
            raise DataError(f"no {stem}_manifest.json and no {stem}.idx: nothing fits {name}")
        result += found
    shards = [match for prefix in result if (match := SHARD.search(prefix))]
    if shards and len(shards) == len(result):
        existing = {int(match[1]) for match in shards}
        count = int(shards[0][2])
        if missing := sorted(set(range(count)) - existing):
            raise DataError(
                f"of {count} shards these are not finished: {', '.join(map(str, missing))}; merge"
                " when all are finished"
            )
    return result


def _fitting(stem: str, ending: str) -> list[str]:
    return sorted(path.removesuffix(ending) for path in glob.glob(stem + ending))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def merge_jobs(prefixes: Sequence[str], output: str) -> None:
    """Merge sets of `preprocess.py`, all their outputs, and write a manifest.

    Raises:
        DataError: they were made with different options, or as of `merge`.
    """
    manifests = [
        manifest.read(f"{prefix}_manifest.json", stage="preprocess") for prefix in prefixes
    ]
    for prefix, other in zip(prefixes, manifests, strict=True):
        for key in SAME:
            if differences := _differences(other[key], manifests[0][key]):
                raise DataError(
                    f"{prefix} and {prefixes[0]} were made with another {key}: {differences}"
                )
    inputs = [Path(f"{prefix}_manifest.json") for prefix in prefixes]
    config = {**manifests[0]["config"], "merged": len(prefixes)}
    manifest_path = Path(f"{output}_manifest.json")
    records = [manifest.describe_file(path) for path in inputs]
    names = [
        Path(record["path"]).name.removeprefix(Path(prefixes[0]).name)
        for record in manifests[0]["outputs"]
    ]
    bases = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
    outputs = [Path(f"{output}{base}{ending}") for base in bases for ending in (".bin", ".idx")]
    identity = Identity(config, records)
    files = RunFiles(output, outputs)
    if finished(output, manifest_path, "preprocess", identity) is not None:
        files.end()  # killed after its manifest
        logger.info(f"{output} is already complete")
        return
    with files.working(identity):
        for base in bases:
            merge([prefix + base for prefix in prefixes], output + base)
        counts = _add_counts(
            [found["counts"] for found in manifests], manifests[0]["tokenizer"]["vocab_size"]
        )
        manifest.write(
            manifest_path,
            stage="preprocess",
            inputs=inputs,
            config=config,
            outputs=outputs,
            counts=counts,
            tokenizer=manifests[0]["tokenizer"],
        )
    print(
        f"{', '.join(map(str, outputs))}: {counts['documents']:,} documents, {counts['tokens']:,}"
        f" tokens, merged from {len(prefixes)} inputs"
    )


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the keys and values that two mappings do not share.

    Paths are left aside, and of how many sets one was merged.
    """
    names = [
        name
        for name in sorted(one.keys() | other.keys())
        if name not in ("path", "merged") and one.get(name) != other.get(name)
    ]
    return "; ".join(f"{name}: {one.get(name)!r} and {other.get(name)!r}" for name in names)


def merge_files(prefixes: Sequence[str], output: str) -> None:
    """Merge one pair of files of each prefix, without a manifest.

    Raises:
        DataError: as of `merge`.
    """
    finals = [Path(f"{output}.bin"), Path(f"{output}.idx")]
    sources = [Path(f"{prefix}{ending}") for prefix in prefixes for ending in (".bin", ".idx")]
    inputs = [stat_record(path) for path in sources if path.exists()]
    with RunFiles(output, finals).working(Identity({}, inputs)):
        documents, tokens = merge(prefixes, output)
    print(
        f"{output}.bin and .idx: {documents:,} documents, {tokens:,} tokens, merged from"
        f" {len(prefixes)} inputs"
    )


def merge(prefixes: Sequence[str], output: str) -> tuple[int, int]:
    """Write the sequences of all `PREFIX.bin/.idx`, in order, to `output`.

    The caller has claimed `output`. Returns the numbers of documents and tokens.

    Raises:
        DataError: an input is damaged or of another type, or the disk is full.
    """
    files = [IndexedFile(prefix, with_data=False) for prefix in prefixes]
    for file in files:
        file.check()
        if file.dtype != files[0].dtype:
            raise DataError(
                f"{file.idx} holds {file.dtype}, {files[0].idx} holds {files[0].dtype}: not of one"
                " tokenizer"
            )
    bin_path = Path(f"{output}.bin")
    idx_path = Path(f"{output}.idx")
    try:
        with atomic_file(bin_path) as new_bin, atomic_file(idx_path) as new_idx:
            _join(files, new_bin)
            _write_index(files, new_idx)
    except OSError as error:
        raise DataError(
            f"cannot write {output}: {error.strerror}; no file of that name was left"
        ) from None
    return sum(file.documents for file in files), sum(file.tokens for file in files)


def _join(files: Sequence[IndexedFile], path: Path) -> None:
    total = sum(file.bin_bytes for file in files)
    with (
        path.open("wb", buffering=0) as out,
        Progress("merge", total=total, unit="B", scale=True) as progress,
    ):
        for file in files:
            with file.bin.open("rb", buffering=0) as source:
                _append(source, out, progress)
    if path.stat().st_size != total:
        raise DataError(
            "an input changed while it was read; start again when nothing writes to the inputs"
        )


def _append(source: FileIO, out: FileIO, progress: Progress) -> None:
    """Copy a file to the end of another, within the kernel where the file systems can."""
    try:
        while done := os.sendfile(out.fileno(), source.fileno(), None, CHUNK_BYTES):
            progress.update(done)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        while chunk := source.read(CHUNK_BYTES):
            progress.update(out.write(chunk))


def _write_index(files: Sequence[IndexedFile], path: Path) -> None:
    with path.open("wb") as out:
        write_header(
            out,
            files[0].dtype,
            sum(file.sequences for file in files),
            sum(file.documents for file in files),
        )
        for lengths in chain.from_iterable(file.read_lengths() for file in files):
            out.write(lengths.data)
        write_offsets(
            out, chain.from_iterable(file.read_lengths() for file in files), files[0].dtype.itemsize
        )
        write_document_ends(out, chain.from_iterable(file.read_counts() for file in files))


def _add_counts(counts: Sequence[dict[str, Any]], vocab_size: int) -> dict[str, Any]:
    """Return the counts of joined sets."""
    outputs: dict[str, Any] = {}
    for found in counts:
        for name, one in found["outputs"].items():
            total = outputs.setdefault(
                name,
                {
                    "documents": 0,
                    "sequences": 0,
                    "tokens": 0,
                    "longest": 0,
                    "longest_document": 0,
                    "unknown": 0,
                },
            )
            if one["longest"] > total["longest"]:
                total["longest"] = one["longest"]
                total["longest_document"] = total["documents"] + one["longest_document"]
            for key in ("documents", "sequences", "tokens", "unknown"):
                total[key] += one[key]
    for name, total in outputs.items():
        total["unknown_rate"] = total["unknown"] / max(total["tokens"], 1)
        used = np.logical_or.reduce(
            [unpack_used(found["outputs"][name]["ids_used"], vocab_size) for found in counts]
        )
        total |= {"ids_never_used": int((~used).sum()), "ids_used": pack_used(used)}
    skipped: dict[str, int] = {}
    for found in counts:
        for reason, number in found["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + number
    top = next(iter(outputs.values()))
    examples = [example for found in counts for example in found["skipped_examples"]][:20]
    result = {name: top[name] for name in ("documents", "tokens", "longest")}
    return {
        **result,
        "bytes": sum(found["bytes"] for found in counts),
        "skipped": skipped,
        "skipped_examples": examples,
        "outputs": outputs,
    }


if __name__ == "__main__":
    cli.run(main)
