"""What is in a token file: documents as text, damage, differences.

    python data_prep/describe.py data/train_text_document --documents 0 5 --tokenizer-model model/
    python data_prep/describe.py data/train_text_document --check
    python data_prep/describe.py data/train_text_document --compare other/train_text_document

Without more options it tells the numbers and shows the first document; the tokenizer is taken from
the manifest beside the file, if there is one. Ends with 1 when --check finds damage or --compare
finds a difference.
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


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    file = IndexedFile(arguments.prefix)
    print(_numbers(file))
    if arguments.check:
        for line in check(file):
            print(line)
    if arguments.compare:
        return compare(file, IndexedFile(arguments.compare))
    if arguments.check:
        return 0
    tokenizer = _tokenizer(file, arguments.tokenizer_model)
    for number in (
        arguments.documents if arguments.documents is not None else [0] if file.documents else []
    ):
        if not -file.documents <= number < file.documents:
            raise UsageError(f"--documents {number}: there are {file.documents:,}, from 0")
        print(show(file, number % file.documents, tokenizer, arguments.all))
    return 0


def check(file: IndexedFile) -> list[str]:
    """Look at the whole index, the highest id, and the hash in the manifest.

    Return what was found to be right.

    Raises:
        DataError: something is wrong.
    """
    file.check()
    found = [f"the index is whole: {file.sequences:,} sequences follow each other without a gap"]
    note = _manifest(file)
    highest, digest = -1, hashlib.sha256()
    first = 0
    with file.bin.open("rb") as ids:  # read, not mapped, so that the memory stays small
        while len(part := np.fromfile(ids, dtype=file.dtype, count=CHUNK)):
            digest.update(part.data)
            highest = max(highest, int(part.max()))
            if part.dtype != np.uint16 and int(part.min()) < 0:
                raise DataError(
                    f"{file.bin}: an id below 0 behind id number {first:,}: it is damaged"
                )
            first += len(part)
    if note is None:
        return [
            *found,
            (
                "no manifest beside it: nothing to compare its bytes with; the highest id is"
                f" {highest:,}"
            ),
        ]
    size = note["tokenizer"]["vocab_size"]
    if highest >= size:
        raise DataError(
            f"{file.bin} holds the id {highest:,}; its tokenizer has {size:,}: it is damaged"
        )
    for record in note["outputs"]:
        path = Path(file.prefix).parent / Path(record["path"]).name
        if path in (file.bin, file.idx):
            now = digest.hexdigest() if path == file.bin else manifest.sha256(path)
            if now != record["sha256"]:
                raise DataError(
                    f"{path} does not have the SHA-256 that its manifest names: it is damaged or"
                    " was changed"
                )
            found.append(f"{path.name} has the SHA-256 of its manifest")
    return [*found, f"all ids are below {size:,}"]


def compare(first: IndexedFile, second: IndexedFile) -> int:
    """Print where two files differ; return 0 when they are the same, else 1."""
    for what, here, there in (
        ("type", first.dtype, second.dtype),
        ("documents", first.documents, second.documents),
        ("sequences", first.sequences, second.sequences),
        ("tokens", first.tokens, second.tokens),
    ):
        if here != there:
            print(f"{what}: {here} and {there}")
    pairs = ((first.ends, second.ends), (first.lengths, second.lengths), (first.ids, second.ids))
    if first.dtype == second.dtype and all(
        _first_difference(one, other) is None for one, other in pairs
    ):
        print(f"{first.prefix} and {second.prefix} are the same")
        return 0
    for number in range(min(first.documents, second.documents)):
        one, other = first.document(number), second.document(number)
        if len(one) != len(other) or any(
            not np.array_equal(a, b) for a, b in zip(one, other, strict=False)
        ):
            flat_one, flat_other = (
                np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
                for parts in (one, other)
            )
            place = _first_difference(flat_one, flat_other)
            what = "the same tokens in other sequences"
            if place is not None:
                near = (
                    f"ids {flat_one[place : place + 5].tolist()} and"
                    f" {flat_other[place : place + 5].tolist()}"
                )
                what = (
                    f"at its token {place:,}: {near} (lengths {len(flat_one):,} and"
                    f" {len(flat_other):,})"
                )
            print(f"the first difference is in document {number:,}, {what}")
            return 1
    more = "; one file has more" if first.documents != second.documents else ""
    print(f"the first {min(first.documents, second.documents):,} documents are the same{more}")
    return 1


def show(file: IndexedFile, number: int, tokenizer: TextTokenizer | None, whole: bool) -> str:
    """Return a document as text, or its ids when there is no tokenizer; sequences apart."""
    parts = file.document(number)
    lines = [
        f"--- document {number:,}: {sum(map(len, parts)):,} tokens in {len(parts)}"
        f" sequence{'s' * (len(parts) != 1)}"
    ]
    for part in parts:
        text = tokenizer.decode(part.tolist()) if tokenizer else " ".join(map(str, part.tolist()))
        lines.append(
            text
            if whole or len(text) <= SHOWN
            else f"{text[:SHOWN]} … ({len(text) - SHOWN:,} characters more; --all shows them)"
        )
    return "\n".join(lines)


def _first_difference(one: Any, other: Any) -> int | None:
    """Return the first place where two arrays differ, which may be behind the end of one.

    None when they are equal.
    """
    size = min(len(one), len(other))
    for start in range(0, size, CHUNK):
        end = min(start + CHUNK, size)
        unequal = one[start:end] != other[start:end]
        if unequal.any():
            return start + int(np.argmax(unequal))
    return None if len(one) == len(other) else size


def _numbers(file: IndexedFile) -> str:
    shortest, longest, empty = None, 0, 0
    for lengths in file.document_lengths():
        filled = lengths[lengths > 0]
        empty += len(lengths) - len(filled)
        if len(filled):
            shortest, longest = (
                min(int(filled.min()), shortest or int(filled.min())),
                max(int(filled.max()), longest),
            )
    mean = file.tokens / max(file.documents, 1)
    return (
        f"{file.prefix}: {file.documents:,} documents, {file.sequences:,} sequences,"
        f" {file.tokens:,} tokens as {file.dtype} ({file.bin_bytes / 1e6:,.1f} MB)\na document has"
        f" {mean:,.1f} tokens, from {shortest or 0:,} to {longest:,}; {empty:,} are empty"
    )


def _manifest(file: IndexedFile) -> dict[str, Any] | None:
    """Return the manifest that names this file, if there is one beside it."""
    for path in sorted(file.bin.parent.glob("*_manifest.json")):
        if file.bin.name.startswith(path.name.removesuffix("manifest.json")):
            note = manifest.read(path)
            if any(Path(record["path"]).name == file.bin.name for record in note["outputs"]):
                return note
    return None


def _tokenizer(file: IndexedFile, given: str | None) -> TextTokenizer | None:
    note = _manifest(file)
    role_file = note is not None and note["config"].get("instruction") and "_role_" in file.bin.name
    path = given or (note["tokenizer"]["path"] if note else None)
    if path is None or role_file or (given is None and not Path(path).exists()):
        return None
    tokenizer = load_tokenizer(path, list((note or {}).get("tokenizer", {}).get("added", {})))
    if note and tokenizer.fingerprint() != note["tokenizer"]["sha256"]:
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
    parser.add_argument("--all", action="store_true", help="show documents whole, however long")
    parser.add_argument(
        "--check",
        action="store_true",
        help="look for damage: the index, the ids, the hashes of the manifest",
    )
    parser.add_argument(
        "--compare", metavar="PREFIX", help="tell the first difference from this file"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
