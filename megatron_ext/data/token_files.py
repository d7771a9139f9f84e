"""Checks pairs of token files (.bin and .idx) against the model; no torch here.

A wrong path, tokenizer or vocabulary is reported before the run's processes start.
"""

import base64
import binascii
import dataclasses
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy

from galen import json_file, manifest, pretrained
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe

_HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document boundaries
_NO_EOD = -2  # an id that no data hold; -1 is the core's id of padding
_DTYPES = {4: numpy.int32, 8: numpy.uint16}
TEXT = "_text_document"
"""Ending of a text file's prefix, as `galen preprocess` names it."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The properties of a tokenizer that Megatron's dataset reads."""

    vocab_size: int
    eod: int
    """End-of-document token; negative if the files have none."""

    @property
    def unique_identifiers(self) -> dict[str, int]:
        """Return the key of this vocabulary in the dataset's cache."""
        return dataclasses.asdict(self)


def check_run(recipe: Recipe, architecture: Architecture, read_index: bool) -> Vocabulary:
    """Check all files of a run against its model and options; return their vocabulary.

    Args:
        recipe: the run's configuration.
        architecture: the model.
        read_index: as for `check`.

    Raises:
        DataError: a file is missing, damaged or made for another model; names it and the fix.
    """
    vocabulary = check(read_prefixes(recipe), architecture, tokenizer_path(recipe), read_index)
    if vocabulary.eod >= 0 or recipe.data.instruction:
        return vocabulary
    for key in ("eod_mask_loss", "reset_attention_mask"):
        if getattr(recipe.data, key):
            raise DataError(
                f"data.{key} needs an end-of-document token in all files: tokenize with"
                " `galen preprocess --append-eod`"
            )
    return vocabulary


def check(
    prefixes: list[str], architecture: Architecture, tokenizer: Path, read_index: bool = True
) -> Vocabulary:
    """Check that the files fit the model; return their vocabulary.

    They are complete, not empty, and made with the model's tokenizer as far as a manifest says.

    Args:
        prefixes: paths of the .bin/.idx pairs without the ending.
        architecture: the model that will read them.
        tokenizer: tokenizer.json of the model.
        read_index: read the complete index of each pair; the index of terabytes takes minutes.

    Raises:
        DataError: a file is missing, damaged or made for another model; names it and the fix.
    """
    eod_tokens = {
        prefix: _check_pair(prefix, architecture, tokenizer, read_index) for prefix in prefixes
    }
    if len(set(eod_tokens.values()) - {_NO_EOD}) > 1:
        raise DataError(
            f"the data have different end-of-document tokens: {eod_tokens}; tokenize all with one"
            " --eod-token"
        )
    return Vocabulary(vocab_size=architecture.vocab_size, eod=min(eod_tokens.values()))


def tokenizer_path(recipe: Recipe) -> Path:
    """Return the path of the tokenizer of a run's initial checkpoint."""
    return Path(recipe.model.checkpoint) / checkpoint_folder.HF / "tokenizer.json"


def read_prefixes(recipe: Recipe) -> list[str]:
    """Return the prefixes of all pairs of files that a run reads, role files included."""
    prefixes = recipe.data.prefixes
    if not recipe.data.instruction:
        return prefixes
    return prefixes + [role_prefix(prefix) for prefix in prefixes]


def role_prefix(prefix: str) -> str:
    """Return the prefix of the role file that belongs to a text file.

    Raises:
        DataError: the text file has not the name that `galen preprocess --instruction` gives.
    """
    if not prefix.endswith(TEXT):
        raise DataError(
            f"data.instruction: {prefix} does not end with {TEXT}, as `galen preprocess"
            " --instruction` names text files"
        )
    return prefix.removesuffix(TEXT) + "_role_document"


def manifest_path(prefix: str) -> Path:
    """Return the path of the manifest of a pair of files; it may not exist."""
    return Path(prefix.removesuffix("_document").rpartition("_")[0] + f"_{manifest.NAME}")


def token_count(prefix: str) -> int:
    """Return the number of tokens of a pair of files, by its index."""
    return int(document_lengths(prefix).sum(dtype=numpy.int64))


def document_lengths(prefix: str) -> Any:
    """Return the tokens of each document of a pair of files, int32, by its index."""
    index = Path(f"{prefix}.idx")
    return numpy.fromfile(index, numpy.int32, _header(index)[3], offset=_HEADER.size)


def token_dtype(prefix: str) -> Any:
    """Return the NumPy type of the tokens of a pair of files, by its index."""
    return _DTYPES[_header(Path(f"{prefix}.idx"))[2]]


def _header(index: Path) -> tuple[bytes, int, int, int, int]:
    """Return the header of an index; zeros if the file is too short."""
    with index.open("rb") as file:
        header = file.read(_HEADER.size)
    return _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, 0, 0)


def _check_pair(prefix: str, architecture: Architecture, tokenizer: Path, read_index: bool) -> int:
    """Check a pair of files; return its end-of-document token, `_NO_EOD` if it is unknown."""
    index = Path(f"{prefix}.idx")
    binary = Path(f"{prefix}.bin")
    for path in (index, binary):
        if not path.is_file():
            raise DataError(f"{path} is missing; {_suggestion(prefix, path)}")
    code, sequences, boundaries = _check_header(index)
    itemsize = numpy.dtype(_DTYPES[code]).itemsize
    if read_index:
        _check_size(prefix, index, binary, itemsize)
    path = manifest_path(prefix)
    if path.is_file():
        made = manifest.read(path, "preprocess")
        if read_index:
            _check_index(index, path, made)
        try:
            _check_tokenizer(made["tokenizer"], path, architecture, tokenizer)
            _check_used_ids(made, path, architecture)
            return made["tokenizer"]["eod"]["id"] if made["config"]["append_eod"] else _NO_EOD
        except (LookupError, TypeError, binascii.Error, zlib.error):
            raise DataError(
                f"{path} lacks what this version of Galen records of a tokenizer; tokenize again"
            ) from None
    if read_index:
        _check_structure(index, sequences, boundaries, itemsize)
    return _NO_EOD


def _check_header(index: Path) -> tuple[int, int, int]:
    """Check the header of an index; return its type's code, its sequences and boundaries."""
    magic, version, code, sequences, boundaries = _header(index)
    if magic != b"MMIDIDX\0\0" or version != 1 or code not in _DTYPES:
        raise DataError(f"{index} is not a Megatron index of 16 or 32 bit ids")
    if index.stat().st_size != _HEADER.size + 12 * sequences + 8 * boundaries:
        raise DataError(f"{index} is truncated or altered; tokenize again")
    return code, sequences, boundaries


def _check_size(prefix: str, index: Path, binary: Path, itemsize: int) -> None:
    """Check that the file has the tokens of its index, and at least one."""
    tokens = token_count(prefix)
    if tokens == 0:
        raise DataError(f"{binary} holds no tokens: the corpus that it was made from is empty")
    if binary.stat().st_size != tokens * itemsize:
        raise DataError(
            f"{binary} has {binary.stat().st_size} bytes, but {index} has {tokens} tokens;"
            " tokenize again"
        )


def _suggestion(prefix: str, missing: Path) -> str:
    """Return how to fix a missing file; most often the prefix is misspelled."""
    stem = Path(prefix.removesuffix(".bin").removesuffix(".idx")).name
    similar = [str(path.with_suffix("")) for path in sorted(missing.parent.glob(f"{stem}*.idx"))]
    if similar and prefix not in similar:
        return f"did you mean {' or '.join(similar[:3])}?"
    return "make it with `galen preprocess`"


def _check_index(index: Path, described: Path, made: dict[str, Any]) -> None:
    """Check an index against the hash in its manifest."""
    for record in made["outputs"]:
        if Path(record["path"]).name == index.name and manifest.sha256(index) != record["sha256"]:
            raise DataError(f"{index} was altered since {described} was written; tokenize again")


def _check_structure(index: Path, sequences: int, boundaries: int, itemsize: int) -> None:
    """Check that an index's sequences are contiguous and that its documents cover them."""
    with index.open("rb") as file:
        file.seek(_HEADER.size)
        lengths = numpy.fromfile(file, numpy.int32, sequences).astype(numpy.int64)
        pointers = numpy.fromfile(file, numpy.int64, sequences)
        documents = numpy.fromfile(file, numpy.int64, boundaries)
    contiguous = pointers[0] == 0 and bool((pointers[1:] == lengths[:-1].cumsum() * itemsize).all())
    covered = (
        documents[0] == 0
        and documents[-1] == sequences
        and bool((numpy.diff(documents) >= 0).all())
    )
    if lengths.min() < 0 or not contiguous or not covered:
        raise DataError(
            f"{index} was altered: its sequences or documents do not follow each other; tokenize"
            " again"
        )


def _check_tokenizer(
    made_with: dict[str, Any], described: Path, architecture: Architecture, tokenizer: Path
) -> None:
    is_own = tokenizer.is_file() and manifest.sha256(tokenizer) == made_with["sha256"]
    size = made_with["vocab_size"]
    if is_own and size > architecture.vocab_size:
        size = _without_placeholders(tokenizer, size)
    if size > architecture.vocab_size:
        raise DataError(
            f"{described}: tokenized with {made_with['path']}, which has"
            f" {size} ids; the model has {architecture.vocab_size} embedding"
            " rows"
        )
    if tokenizer.is_file() and not is_own:
        raise DataError(
            f"{described}: tokenized with {made_with['path']}, which differs from the model's own"
            f" {tokenizer}; tokenize again with that one"
        )


def _without_placeholders(tokenizer: Path, size: int) -> int:
    """Return the ids of a tokenizer.json without the placeholders of images at their end."""
    added = json_file.read_object(tokenizer).get("added_tokens") or []
    names = {token["id"]: token["content"] for token in added}
    while names.get(size - 1) in pretrained.PLACEHOLDER_TOKENS:
        size -= 1
    return size


def _check_used_ids(made: dict[str, Any], described: Path, architecture: Architecture) -> None:
    """Check that files of a tokenizer with more ids than the model has rows do not use these.

    Raises:
        DataError: they do.
    """
    size = made["tokenizer"]["vocab_size"]
    if size <= architecture.vocab_size:
        return
    for name, counts in made["counts"]["outputs"].items():
        compressed = base64.b64decode(counts["ids_used"])
        bits = zlib.decompressobj().decompress(compressed, size // 8 + 1)
        used = numpy.unpackbits(numpy.frombuffer(bits, numpy.uint8), bitorder="little")
        if used[architecture.vocab_size :].any():
            raise DataError(
                f"{described}: {name} holds an id from {architecture.vocab_size} on, for which the"
                " model has no embedding row: the text contains the placeholder of an image"
            )
