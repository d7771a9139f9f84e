"""Indexed datasets: checked against the model before anything is built, then read by Megatron Core's GPTDataset."""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from galen import manifest
from galen.errors import DataError
from megatron_ext.architecture import Architecture
from megatron_ext.recipe import Recipe

_HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document boundaries
_NO_EOD = -2  # an id that no data hold; -1 is the core's id of padding
_DTYPES = {4: numpy.int32, 8: numpy.uint16}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What Megatron's dataset asks of a tokenizer: it needs no text here."""

    vocab_size: int
    eod: int

    @property
    def unique_identifiers(self) -> dict[str, int]:
        """Return what tells this vocabulary from others in the dataset's cache."""
        return dataclasses.asdict(self)


def check(prefixes: list[str], architecture: Architecture, tokenizer: Path) -> Vocabulary:
    """Check that the files are whole, not empty, and made with the model's tokenizer; return their vocabulary.

    Args:
        prefixes: paths of the .bin/.idx pairs without the ending.
        architecture: the model that will read them.
        tokenizer: tokenizer.json of the model.

    Raises:
        DataError: something does not fit; says which file and what to do.
    """
    ends = {prefix: _check_one(prefix, architecture, tokenizer) for prefix in prefixes}
    if len(set(ends.values())) > 1:
        raise DataError(f"the data have different end-of-document tokens: {ends}; tokenise all with one --eod-token")
    return Vocabulary(vocab_size=architecture.vocab_size, eod=next(iter(ends.values())))


def _check_one(prefix: str, architecture: Architecture, tokenizer: Path) -> int:
    """Check one pair of files and return the id of its end-of-document token (`_NO_EOD` when nothing tells it)."""
    index, binary = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (index, binary):
        if not path.is_file():
            raise DataError(f"{path} is missing; make it with data_prep/preprocess.py (give the prefix without the ending)")
    with index.open("rb") as file:
        head = file.read(_HEADER.size)
        magic, version, code, sequences, boundaries = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0, 0, 0)
        if magic != b"MMIDIDX\0\0" or version != 1 or code not in _DTYPES:
            raise DataError(f"{index} is not a Megatron index of 16 or 32 bit ids")
        if index.stat().st_size != _HEADER.size + 12 * sequences + 8 * boundaries:
            raise DataError(f"{index} is cut off or altered; tokenise again")
        tokens = int(numpy.fromfile(file, numpy.int32, sequences).sum(dtype=numpy.int64))
    if tokens == 0:
        raise DataError(f"{binary} holds no tokens: the corpus that it was made from is empty")
    if binary.stat().st_size != tokens * numpy.dtype(_DTYPES[code]).itemsize:
        raise DataError(f"{binary} has {binary.stat().st_size} bytes where {index} speaks of {tokens} tokens; tokenise again")
    described = Path(prefix.removesuffix("_document").rpartition("_")[0] + f"_{manifest.NAME}")
    if described.is_file():
        return _check_tokenizer(manifest.read(described, "preprocess")["tokenizer"], described, architecture, tokenizer)
    largest = int(numpy.memmap(binary, _DTYPES[code], "r").max())
    if largest >= architecture.vocab_size:
        raise DataError(
            f"{binary} holds the id {largest}, the model has {architecture.vocab_size} embedding rows: another tokenizer made it"
        )
    return _NO_EOD


def _check_tokenizer(made_with: dict[str, Any], where: Path, architecture: Architecture, tokenizer: Path) -> int:
    if made_with["vocab_size"] > architecture.vocab_size:
        raise DataError(
            f"{where}: tokenised with {made_with['path']}, which has {made_with['vocab_size']} ids; "
            f"the model has {architecture.vocab_size} embedding rows"
        )
    if tokenizer.is_file() and manifest.sha256(tokenizer) != made_with["sha256"]:
        raise DataError(
            f"{where}: tokenised with {made_with['path']}, which differs from the model's own {tokenizer}; tokenise again with that one"
        )
    end = made_with.get("eod") or {}
    return end.get("id", _NO_EOD)


def build(recipe: Recipe, vocabulary: Vocabulary, cache: Path) -> tuple[Any, Any]:
    """Return the training and validation datasets (collective: rank 0 writes the index cache, the others read it)."""
    training = recipe.training
    sizes = [training.train_iters * training.global_batch_size, training.eval_iters * training.global_batch_size, 0]
    config = GPTDatasetConfig(
        random_seed=training.seed,
        sequence_length=recipe.data.seq_length,
        blend_per_split=[(recipe.data.train, None), (recipe.data.validation, None) if training.eval_iters else None, None],
        path_to_cache=str(cache),
        tokenizer=vocabulary,  # type: ignore[arg-type]
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=recipe.data.eod_mask_loss,
        create_attention_mask=False,  # causal masks are built into the attention kernels
    )
    train, validation, _ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    return train, validation


class BatchSampler:
    """Yields this data-parallel rank's micro-batches of sample indices, from a given number of consumed samples on.

    Sample n of the run is the same whatever the number of ranks and the micro-batch size.
    """

    def __init__(self, *, total: int, consumed: int, micro_batch_size: int, rank: int, ranks: int) -> None:
        self.total, self.consumed = total, consumed
        self.micro_batch_size, self.rank, self.ranks = micro_batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of `micro_batch_size` indices."""
        step = self.micro_batch_size * self.ranks
        for start in range(self.consumed, self.total - step + 1, step):
            first = start + self.rank * self.micro_batch_size
            yield list(range(first, first + self.micro_batch_size))


def loader(dataset: Any, sampler: BatchSampler, num_workers: int, pin_memory: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Yield micro-batches `{tokens, labels, loss_mask, position_ids}`, each [micro batch, sequence], on the CPU."""
    return iter(
        torch.utils.data.DataLoader(
            dataset, batch_sampler=sampler, num_workers=num_workers, pin_memory=pin_memory, persistent_workers=num_workers > 0
        )
    )
