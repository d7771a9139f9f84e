"""Inspect a token file: documents as text, damage, differences.

    galen inspect-tokens data/train_text_document --documents 0 5 --tokenizer-model model/
    galen inspect-tokens data/train_text_document --check
    galen inspect-tokens data/train_text_document --compare other/train_text_document

Without more options it prints the counts and the first document; the tokenizer is that of the
manifest beside the file, if there is one. Exits with 1 when --check finds damage or --compare finds
a difference.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import CHUNK, IndexedFile
from data_prep.tokenization.tokenizer import TextTokenizer, load_tokenizer
from galen import cli, manifest
from galen.errors import DataError, UsageError

SHOWN = 2000
"""Characters of a sequence that are shown without --all."""

Sequences = list[np.ndarray[Any, Any]]
"""The ids of a document, sequence by sequence."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    file = IndexedFile(arguments.prefix)
    print(_counts(file))
    if arguments.check:
        for line in check(file):
            print(line)
    if arguments.compare:
        return compare(file, IndexedFile(arguments.compare))
    if arguments.check:
        return 0
    tokenizer = _tokenizer(file, arguments.tokenizer_model)
    numbers = arguments.documents
    if numbers is None:
        numbers = [0] if file.documents else []
    for number in numbers:
        if not -file.documents <= number < file.documents:
            raise UsageError(f"--documents {number}: there are {file.documents:,}, from 0")
        print(show(file, number % file.documents, tokenizer, arguments.all))
    return 0


def check(file: IndexedFile) -> list[str]:
    """Check the index, the highest id, and the hash in the manifest.

    Return what was verified.

    Raises:
        DataError: the file is damaged.
    """
    file.check()
    verified = [f"the index is complete: {file.sequences:,} sequences without a gap"]
    highest, sha256 = _scan_ids(file)
    record = _manifest(file)
    if record is None:
        verified.append(
            "no manifest beside it: nothing to compare its bytes with; the highest id is"
            f" {highest:,}"
        )
        return verified
    size = record["tokenizer"]["vocab_size"]
    if highest >= size:
        raise DataError(
            f"{file.bin} holds the id {highest:,}; its tokenizer has {size:,}: it is damaged"
        )
    for output in record["outputs"]:
        path = Path(file.prefix).parent / Path(output["path"]).name
        if path in (file.bin, file.idx):
            actual = sha256 if path == file.bin else manifest.sha256(path)
            if actual != output["sha256"]:
                raise DataError(
                    f"{path} does not have the SHA-256 that its manifest names: it is damaged or"
                    " was changed"
                )
            verified.append(f"{path.name} has the SHA-256 of its manifest")
    verified.append(f"all ids are below {size:,}")
    return verified


def _scan_ids(file: IndexedFile) -> tuple[int, str]:
    """Return the highest id of a file, -1 for none, and the SHA-256 of its ids.

    Raises:
        DataError: an id is negative.
    """
    highest = -1
    digest = hashlib.sha256()
    first = 0
    with file.bin.open("rb") as stream:  # read, not mapped, so that the memory stays small
        while len(ids := np.fromfile(stream, dtype=file.dtype, count=CHUNK)):
            digest.update(ids.data)
            highest = max(highest, int(ids.max()))
            if ids.dtype != np.uint16 and int(ids.min()) < 0:
                raise DataError(
                    f"{file.bin}: an id below 0 behind id number {first:,}: it is damaged"
                )
            first += len(ids)
    return highest, digest.hexdigest()


def compare(first: IndexedFile, second: IndexedFile) -> int:
    """Print the first difference of two files; return 0 when they are the same, else 1."""
    for name in ("dtype", "documents", "sequences", "tokens"):
        values = (getattr(first, name), getattr(second, name))
        if values[0] != values[1]:
            print(f"{'type' if name == 'dtype' else name}: {values[0]} and {values[1]}")
    if _is_same(first, second):
        print(f"{first.prefix} and {second.prefix} are the same")
        return 0
    for number in range(min(first.documents, second.documents)):
        difference = _document_difference(first.document(number), second.document(number))
        if difference is not None:
            print(f"the first difference is in document {number:,}, {difference}")
            return 1
    more = "; one file has more" if first.documents != second.documents else ""
    print(f"the first {min(first.documents, second.documents):,} documents are the same{more}")
    return 1


def _is_same(first: IndexedFile, second: IndexedFile) -> bool:
    """Return whether two files have the same type, documents, sequences and ids."""
    if first.dtype != second.dtype:
        return False
    for name in ("ends", "lengths", "ids"):
        if _first_difference(getattr(first, name), getattr(second, name)) is not None:
            return False
    return True


def _document_difference(first: Sequences, second: Sequences) -> str | None:
    """Return the first difference of two documents in words, None for none."""
    if len(first) == len(second) and all(map(np.array_equal, first, second)):
        return None
    flat_first = np.concatenate(first) if first else np.zeros(0, dtype=np.int32)
    flat_second = np.concatenate(second) if second else np.zeros(0, dtype=np.int32)
    position = _first_difference(flat_first, flat_second)
    if position is None:
        return "the same tokens in other sequences"
    end = position + 5
    return (
        f"at its token {position:,}: ids {flat_first[position:end].tolist()} and"
        f" {flat_second[position:end].tolist()} (lengths {len(flat_first):,} and"
        f" {len(flat_second):,})"
    )


def show(file: IndexedFile, number: int, tokenizer: TextTokenizer | None, full: bool) -> str:
    """Return a document as text, or its ids when there is no tokenizer.

    Each sequence is a line; long ones are truncated unless `full`.
    """
    sequences = file.document(number)
    plural = "" if len(sequences) == 1 else "s"
    lines = [
        f"--- document {number:,}: {sum(map(len, sequences)):,} tokens in {len(sequences)}"
        f" sequence{plural}"
    ]
    for ids in sequences:
        text = tokenizer.decode(ids.tolist()) if tokenizer else " ".join(map(str, ids.tolist()))
        if not full and len(text) > SHOWN:
            text = f"{text[:SHOWN]} … ({len(text) - SHOWN:,} characters more; --all shows them)"
        lines.append(text)
    return "\n".join(lines)


def _first_difference(one: Any, other: Any) -> int | None:
    """Return the first index where two arrays differ, which may be behind the end of one.

    None when they are equal.
    """
    size = min(len(one), len(other))
    for start in range(0, size, CHUNK):
        end = min(start + CHUNK, size)
        unequal = one[start:end] != other[start:end]
        if unequal.any():
            return start + int(np.argmax(unequal))
    return None if len(one) == len(other) else size


def _counts(file: IndexedFile) -> str:
    shortest: int | None = None
    longest = 0
    empty = 0
    for lengths in file.document_lengths():
        filled = lengths[lengths > 0]
        empty += len(lengths) - len(filled)
        if len(filled):
            smallest = int(filled.min())
            shortest = smallest if shortest is None else min(smallest, shortest)
            longest = max(int(filled.max()), longest)
    mean = file.tokens / max(file.documents, 1)
    return (
        f"{file.prefix}: {file.documents:,} documents, {file.sequences:,} sequences,"
        f" {file.tokens:,} tokens as {file.dtype} ({file.bin_bytes / 1e6:,.1f} MB)\ntokens per"
        f" document: mean {mean:,.1f}, from {shortest or 0:,} to {longest:,}; {empty:,} are empty"
    )


def _manifest(file: IndexedFile) -> dict[str, Any] | None:
    """Return the manifest that names this file, if there is one beside it."""
    for path in sorted(file.bin.parent.glob("*_manifest.json")):
        if not file.bin.name.startswith(path.name.removesuffix("manifest.json")):
            continue
        record = manifest.read(path)
        if any(Path(output["path"]).name == file.bin.name for output in record["outputs"]):
            return record
    return None


def _tokenizer(file: IndexedFile, path: str | None) -> TextTokenizer | None:
    """Return the tokenizer of a file, None without one.

    Args:
        file: of token ids.
        path: of the tokenizer; None takes that of the manifest, where it exists.

    Raises:
        DataError: the file was made with another tokenizer.
    """
    record = _manifest(file)
    if record is None:
        return load_tokenizer(path, []) if path else None
    if record["config"].get("instruction") and "_role_" in file.bin.name:
        return None
    if path is None:
        path = record["tokenizer"]["path"]
        if path is None or not Path(path).exists():
            return None
    tokenizer = load_tokenizer(path, list(record["tokenizer"].get("added", {})))
    if tokenizer.fingerprint() != record["tokenizer"]["sha256"]:
        raise DataError(
            f"{path} is not the tokenizer that {file.bin} was made with (its vocabulary has another"
            " SHA-256)"
        )
    return tokenizer


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "prefix", metavar="PREFIX", help="path of the .bin and .idx, without these endings"
    )
    parser.add_argument(
        "--documents",
        nargs="+",
        type=int,
        metavar="N",
        help="show these, from 0; -1 is the last [0]",
    )
    parser.add_argument(
        "--tokenizer-model", metavar="T", help="show text with this tokenizer [the manifest's]"
    )
    parser.add_argument("--all", action="store_true", help="do not truncate long documents")
    parser.add_argument(
        "--check",
        action="store_true",
        help="look for damage: the index, the ids, the hashes of the manifest",
    )
    parser.add_argument(
        "--compare", metavar="PREFIX", help="print the first difference from this file"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
