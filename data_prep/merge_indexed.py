"""Merging of several token files into one.

    galen merge-indexed --input 'data/train_*-of-00008' --output-prefix data/train

joins the shards that `galen preprocess --shards 8` wrote; the result has the same bytes as without
--shards. Each --input is a PREFIX that has a PREFIX_manifest.json, or the PREFIX of one PREFIX.bin
and .idx from any source (then --output-prefix is the new name without .bin). Memory use does not
depend on the number of documents; files may exceed 2^31 bytes. An interrupted merge starts over.
"""

import errno
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import (
    Array,
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
from galen.run_folder import RunFiles, finished
from galen.run_identity import Identity, stat_record

logger = logging.getLogger(__name__)

SHARD = re.compile(r"_(\d{5})-of-(\d{5})$")
CHUNK_BYTES = 1 << 22
MAX_EXAMPLES = 20
"""Number of skipped records that the manifest lists."""
_EQUAL = ("config", "tokenizer")
"""Entries of the manifests that must be equal."""


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
        DataError: nothing matches, or shards are missing.
    """
    prefixes: list[str] = []
    for name in names:
        stem = re.sub(r"(\.bin|\.idx|_manifest\.json)$", "", name)
        matches = [stem]
        if glob.has_magic(stem):
            matches = _matching(stem, "_manifest.json") or _matching(stem, ".idx")
        if not matches:
            raise DataError(f"no {stem}_manifest.json and no {stem}.idx: nothing matches {name}")
        prefixes += matches
    _check_shards(prefixes)
    return prefixes


def _check_shards(prefixes: Sequence[str]) -> None:
    """Check that all shards are there, if all inputs are shards.

    Raises:
        DataError: some are missing.
    """
    shards = [match for prefix in prefixes if (match := SHARD.search(prefix))]
    if not shards or len(shards) < len(prefixes):
        return
    count = int(shards[0][2])
    missing = set(range(count)) - {int(match[1]) for match in shards}
    if missing:
        raise DataError(
            f"of {count} shards these are not finished: {', '.join(map(str, sorted(missing)))};"
            " merge when all are finished"
        )


def _matching(stem: str, ending: str) -> list[str]:
    return sorted(path.removesuffix(ending) for path in glob.glob(stem + ending))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def merge_jobs(prefixes: Sequence[str], output: str) -> None:
    """Merge all outputs of several runs of `galen preprocess`, and write a manifest.

    Raises:
        DataError: they were made with different options; or as for `merge`.
    """
    manifests = _read_manifests(prefixes)
    first = manifests[0]
    inputs = [Path(f"{prefix}_manifest.json") for prefix in prefixes]
    config = {**first["config"], "merged": len(prefixes)}
    manifest_path = Path(f"{output}_manifest.json")
    names = [Path(record["path"]).name for record in first["outputs"]]
    prefix_name = Path(prefixes[0]).name
    bases = [
        name.removeprefix(prefix_name).removesuffix(".idx")
        for name in names
        if name.endswith(".idx")
    ]
    outputs = _pairs([output + base for base in bases])
    identity = Identity(config, [manifest.describe_file(path) for path in inputs])
    files = RunFiles(output, outputs)
    if finished(output, manifest_path, "preprocess", identity) is not None:
        files.end()  # killed after its manifest
        logger.info(f"{output} is already complete")
        return
    with files.working(identity):
        for base in bases:
            merge([prefix + base for prefix in prefixes], output + base)
        counts = _add_counts([record["counts"] for record in manifests], first["tokenizer"])
        manifest.write(
            manifest_path,
            stage="preprocess",
            inputs=inputs,
            config=config,
            outputs=outputs,
            counts=counts,
            tokenizer=first["tokenizer"],
        )
    print(
        f"{', '.join(map(str, outputs))}: {counts['documents']:,} documents, {counts['tokens']:,}"
        f" tokens, merged from {len(prefixes)} inputs"
    )


def _read_manifests(prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the manifests of all inputs.

    Raises:
        DataError: they were made with different options.
    """
    manifests = [
        manifest.read(f"{prefix}_manifest.json", stage="preprocess") for prefix in prefixes
    ]
    for prefix, record in zip(prefixes, manifests, strict=True):
        for key in _EQUAL:
            if differences := _differences(record[key], manifests[0][key]):
                raise DataError(
                    f"{prefix} and {prefixes[0]} were made with another {key}: {differences}"
                )
    return manifests


def _pairs(bases: Sequence[str]) -> list[Path]:
    """Return the `.bin` and `.idx` files of several bases."""
    paths: list[Path] = []
    for base in bases:
        paths += [Path(f"{base}.bin"), Path(f"{base}.idx")]
    return paths


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the keys and values that differ.

    Paths and the number of merged inputs are ignored.
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
        DataError: as for `merge`.
    """
    inputs = [stat_record(path) for path in _pairs(prefixes) if path.exists()]
    with RunFiles(output, _pairs([output])).working(Identity({}, inputs)):
        documents, tokens = merge(prefixes, output)
    print(
        f"{output}.bin and .idx: {documents:,} documents, {tokens:,} tokens, merged from"
        f" {len(prefixes)} inputs"
    )


def merge(prefixes: Sequence[str], output: str) -> tuple[int, int]:
    """Write the sequences of all `PREFIX.bin/.idx`, in order, to `output`.

    The caller holds the lock of `output`.

    Returns:
        The numbers of documents and tokens.

    Raises:
        DataError: an input is damaged or of another type, or the disk is full.
    """
    files = [IndexedFile(prefix, with_data=False) for prefix in prefixes]
    for file in files:
        file.check()
        if file.dtype != files[0].dtype:
            raise DataError(
                f"{file.idx} holds {file.dtype}, {files[0].idx} holds {files[0].dtype}: they were"
                " made with different tokenizers"
            )
    bin_path = Path(f"{output}.bin")
    idx_path = Path(f"{output}.idx")
    try:
        with atomic_file(bin_path) as new_bin, atomic_file(idx_path) as new_idx:
            _join(files, new_bin)
            _write_index(files, new_idx)
    except OSError as error:
        raise DataError(
            f"cannot write {output}: {error.strerror}; its incomplete files were removed"
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
    """Append a file to another, within the kernel if the file systems support that."""
    try:
        while count := os.sendfile(out.fileno(), source.fileno(), None, CHUNK_BYTES):
            progress.update(count)
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
        for lengths in _all_lengths(files):
            out.write(lengths.data)
        write_offsets(out, _all_lengths(files), files[0].dtype.itemsize)
        write_document_ends(out, chain.from_iterable(file.read_counts() for file in files))


def _all_lengths(files: Sequence[IndexedFile]) -> Iterator[Array]:
    """Yield the lengths of the sequences of all files."""
    for file in files:
        yield from file.read_lengths()


def _add_counts(counts: Sequence[dict[str, Any]], tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of a merged output's manifest."""
    outputs: dict[str, Any] = {}
    for name in counts[0]["outputs"]:
        output_counts = [one["outputs"][name] for one in counts]
        outputs[name] = _add_output_counts(output_counts, tokenizer["vocab_size"])
    skipped = Counter[str]()
    examples: list[str] = []
    for one in counts:
        skipped.update(one["skipped"])
        examples += one["skipped_examples"]
    first = next(iter(outputs.values()))
    return {
        "documents": first["documents"],
        "tokens": first["tokens"],
        "longest": first["longest"],
        "bytes": sum(one["bytes"] for one in counts),
        "skipped": dict(skipped),
        "skipped_examples": examples[:MAX_EXAMPLES],
        "outputs": outputs,
    }


def _add_output_counts(counts: Sequence[dict[str, Any]], vocab_size: int) -> dict[str, Any]:
    """Return the counts of one output, such as `text`, of all inputs together."""
    total: dict[str, Any] = {
        "documents": 0,
        "sequences": 0,
        "tokens": 0,
        "longest": 0,
        "longest_document": 0,
        "unknown": 0,
    }
    used = np.zeros(vocab_size, dtype=bool)
    for one in counts:
        if one["longest"] > total["longest"]:
            total["longest"] = one["longest"]
            total["longest_document"] = total["documents"] + one["longest_document"]
        for key in ("documents", "sequences", "tokens", "unknown"):
            total[key] += one[key]
        used |= unpack_used(one["ids_used"], vocab_size)
    return {
        **total,
        "unknown_rate": total["unknown"] / max(total["tokens"], 1),
        "ids_never_used": int((~used).sum()),
        "ids_used": pack_used(used),
    }


if __name__ == "__main__":
    cli.run(main)
